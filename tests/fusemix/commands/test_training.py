"""`fusemix fuse` and `fusemix benchmark` on several datasets and on more than two modalities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fusemix as library
from tests.fusemix.commands.conftest import Fusemix
from tests.fusemix.commands.small_world import write_world

TRIANGLE = """
name: triangle
dataset: {{reader: manifest, path: {folder}/pairs.csv, texts: [name]}}
encoders: {{image: colours, text: written-colours, name: named-colours}}
extract: {{workers: 1}}
fuse: {{steps: 4, warmup_steps: 1, validate_every: 2, batch_size: 8, joint_dim: 8, adapter: {{depth: 0}}}}
benchmark: {{draws: 9, seeds: [0]}}
"""


def second_world(folder: Path, rows: int, *, images: bool = True, splits: tuple[str, ...] = ("train",)) -> None:
    """Write a manifest `more.csv` beside the first, of some of its pictures and of captions of their own."""
    lines = ["item,image,text,split" if images else "item,text,split"]
    for row in range(rows):
        image = f"{row:03}.png," if images else ""
        lines.append(f"more{row:03},{image}{row} 1 {255 - row},{splits[row % len(splits)]}")
    (folder / "more.csv").write_text("\n".join(lines) + "\n")


def both(folder: Path) -> list[str]:
    return ["--dataset", f"[{folder}/pairs.csv, {folder}/more.csv]"]


def result_of(folder: Path, run: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "results" / "retrieval" / f"{run}.json").read_text())
    return read


@pytest.fixture
def triangle(tmp_path: Path) -> Path:
    """Write a manifest of pictures, captions and names, and its recipe."""
    write_world(tmp_path, rows=64)
    lines = (tmp_path / "pairs.csv").read_text().splitlines()
    named = [f"{line},{line.split(',')[2]}" for line in lines[1:]]
    (tmp_path / "pairs.csv").write_text("\n".join([f"{lines[0]},name", *named]) + "\n")
    recipe = tmp_path / "triangle.yaml"
    recipe.write_text(TRIANGLE.format(folder=tmp_path))
    return recipe


def test_several_datasets_are_extracted_trained_on_and_measured_each(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path, rows=64)
    second_world(tmp_path, 32, splits=("train", "test"))
    told = fusemix("fuse", recipe, "--root", tmp_path, *both(tmp_path))
    assert told.code == 0, told.err
    for dataset, rows in (("pairs", 64), ("more", 32)):
        for file in ("image/colours.h5", "text/written-colours.h5"):
            assert f"latents/{dataset}/{file}: {rows} of {rows} rows done" in told
        result = result_of(tmp_path, f"mine/{dataset}")
        assert (result["dataset"], result["run"], result["items"]) == (dataset, "mine", 16)
        assert f"Retrieval on {dataset}, test split: 16 items" in told
        assert f"result: {tmp_path}/results/retrieval/mine/{dataset}.json" in told
    assert "\nmore: 16 " in told.err, "what of it is trained on"
    again = fusemix("fuse", recipe, "--root", tmp_path, *both(tmp_path))
    assert (again.code, again.count(": complete, ")) == (0, 5), again.err


def test_a_run_of_several_datasets_keeps_their_names_and_is_searched(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path, rows=64)
    second_world(tmp_path, 32)
    assert fusemix("fuse", recipe, "--root", tmp_path, *both(tmp_path)).code == 0
    assert library.load(tmp_path / "runs" / "mine").recipe.dataset_names == ["pairs", "more"]
    assert not (tmp_path / "results" / "retrieval" / "mine" / "more.json").exists(), "it has no test split"
    # Neither the datasets' files nor their manifests are needed to search.
    for manifest in ("pairs.csv", "more.csv"):
        (tmp_path / manifest).unlink()
    found = fusemix("search", "1 0 254", "--run", tmp_path / "runs/mine", "--root", tmp_path, "-k", "3")
    assert (found.code, len(found.splitlines())) == (0, 4), found.err
    assert "image rows of pairs, more closest to '1 0 254'" in found


def test_a_modality_that_one_dataset_lacks_is_said_and_skipped(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path, rows=64)
    second_world(tmp_path, 32, images=False, splits=("train", "test"))
    told = fusemix("fuse", recipe, "--root", tmp_path, *both(tmp_path))
    assert told.code == 0, told.err
    assert "note: more has no image: its items go without" in told.err
    assert not (tmp_path / "latents" / "more" / "image").exists()
    # More has items in the split, but none of two modalities.
    assert {path.stem for path in (tmp_path / "results" / "retrieval" / "mine").iterdir()} == {"pairs"}
    found = fusemix("search", "1 0 254", "--run", tmp_path / "runs/mine", "--root", tmp_path)
    assert "image rows of pairs closest to '1 0 254'" in found
    alone = fusemix("extract", recipe, "--root", tmp_path, "--dataset", f"[{tmp_path}/more.csv]")
    assert (alone.code, alone.err) == (2, "error: dataset 'more' has no 'image': choose one of text\n")


def test_rows_of_several_datasets_are_encoded_again_each_from_its_own(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path, rows=16)
    second_world(tmp_path, 12)
    alone = f"{{reader: manifest, path: {tmp_path}/pairs.csv}}"
    for_two = recipe.read_text().replace(alone, f"[{alone}, {tmp_path}/more.csv]")
    recipe.write_text(for_two)
    assert fusemix("extract", recipe, "--root", tmp_path).code == 0
    for dataset, rows in (("pairs", 16), ("more", 12)):
        file = tmp_path / "latents" / dataset / "text" / "written-colours.h5"
        told = fusemix("inspect", file, "--verify", "--encode", "99", "--recipe", recipe)
        assert (told.code, f"{rows} rows encoded again" in told) == (0, True), told.err
    recipe.write_text(for_two.replace("more.csv", "others.csv"))
    told = fusemix("inspect", tmp_path / "latents/more/text/written-colours.h5", "--verify", "--recipe", recipe)
    assert "has no dataset, or several, that may be 'more': name them in it" in told.err


def test_a_split_of_captions_alone_is_refused_before_training(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path, rows=64)
    second_world(tmp_path, 32, images=False, splits=("train", "dev"))
    told = fusemix("fuse", recipe, "--root", tmp_path, *both(tmp_path), "--benchmark.split", "dev")
    last = told.err.splitlines()[-1]
    assert (told.code, "no item of the split 'dev' with two of image, text: nothing to measure" in last) == (2, True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--encoders.audio", "colours"],
            "none of the datasets 'pairs', 'more' has 'audio': choose one of image, text",
        ),
        (
            ["--dataset", "[{folder}/pairs.csv, {folder}/other/pairs.csv]"],
            "dataset: two are called 'pairs': give each",
        ),
        (["--fuse.dataset_weights.mor", "2"], "fuse.dataset_weights.mor: no such dataset: did you mean 'more'?"),
        (["--fuse.dataset_weights", "{{pairs: 0, more: 0}}"], "fuse.dataset_weights sum to 0"),
        (["--benchmark.split", "tset"], "no item of the split 'tset' at all in pairs, more: nothing to measure"),
    ],
)
def test_a_slip_with_several_datasets_is_one_line(
    fusemix: Fusemix, tmp_path: Path, options: list[str], message: str
) -> None:
    recipe = write_world(tmp_path, rows=64)
    second_world(tmp_path, 32)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pairs.csv").write_text("item,text\n1,1 2 3\n")
    given = [option.format(folder=tmp_path) for option in options]
    told = fusemix("fuse", recipe, "--root", tmp_path, *both(tmp_path), *given)
    last = told.err.splitlines()[-1]
    assert (told.code, last[:7]) == (2, "error: ")
    assert message in last
    assert not (tmp_path / "runs").exists()


def test_every_pair_of_three_modalities_is_measured_and_told_whether_it_was_trained(
    fusemix: Fusemix, tmp_path: Path, triangle: Path
) -> None:
    told = fusemix("fuse", triangle, "--root", tmp_path, "--fuse.anchor", "image")
    assert told.code == 0, told.err
    directions = result_of(tmp_path, "triangle")["directions"]
    assert [(one["name"], one["trained"]) for one in directions] == [
        ("image to text", True),
        ("text to image", True),
        ("image to name", True),
        ("name to image", True),
        ("text to name", False),
        ("name to text", False),
    ]
    table = told[told.index("Retrieval on pairs") : told.index("\nrun: ")].splitlines()
    assert max(map(len, table)) <= 80
    heads = [line.split() for line in table if " to " in line]
    assert heads[2] == ["emergent", "text", "to", "name", "name", "to", "text"]
    assert "emergent: between modalities that no edge aligned." in table


def test_settings_that_changed_are_accepted_if_told_so(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path, rows=64)
    assert fusemix("fuse", recipe, "--root", tmp_path).code == 0
    longer: list[str | Path] = ["fuse", recipe, "--root", tmp_path, "--fuse.steps", "6"]
    refused = fusemix(*longer)
    assert refused.code == 2
    assert "fuse.steps was 4, now 6" in refused.err
    went_on = fusemix(*longer, "--accept-changes")
    assert went_on.code == 0, went_on.err
    steps = [json.loads(line)["step"] for line in (tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(6))
    assert library.load(tmp_path / "runs" / "mine").recipe.fuse.steps == 6


def test_latents_that_stay_in_their_files_give_the_same_figures(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path, rows=64)
    fused = [
        fusemix("fuse", recipe, "--root", tmp_path, "--run", where, "--fuse.residency", where)
        for where in ("host", "disk")
    ]
    assert [told.code for told in fused] == [0, 0], fused[1].err
    assert "in their files" in fused[1].err
    host, disk = (result_of(tmp_path, where) for where in ("host", "disk"))
    assert host["directions"] == disk["directions"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "two modalities are compared: choose two of image, text, name with --pair A B"),
        (["--pair", "image", "txt"], "--pair image txt: choose two of image, text, name with --pair A B"),
        (["--pair", "image", "image"], "--pair image image: choose two of image, text, name with --pair A B"),
        (["--pair", "image"], "expected 2 arguments"),
        (["--pair", "image", "text", "--dataset", "[a.csv, b.csv]"], "compares on one dataset, and the recipe has 2"),
    ],
)
def test_a_comparison_needs_one_pair_and_one_dataset(
    fusemix: Fusemix, tmp_path: Path, triangle: Path, options: list[str], message: str
) -> None:
    told = fusemix("benchmark", triangle, "--root", tmp_path, *options)
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert message in told.err


def test_a_pair_of_three_modalities_is_compared(fusemix: Fusemix, tmp_path: Path, triangle: Path) -> None:
    told = fusemix("benchmark", triangle, "--root", tmp_path, "--pair", "text", "name")
    assert told.code == 0, told.err
    result = json.loads((tmp_path / "results" / "comparison" / "triangle.json").read_text())
    assert [one["name"] for one in result["methods"][0]["result"]["directions"]] == ["text to name", "name to text"]


def test_a_run_is_refitted_says_what_it_learned_from_and_starts_anew(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path, rows=64)
    usual: list[str | Path] = ["fuse", recipe, "--root", tmp_path]
    assert fusemix(*usual, "--run", "plain").code == 0
    assert result_of(tmp_path, "plain")["learned_from"] == ["train"]
    told = fusemix(*usual, "--fuse.refit", "true")
    assert "refit: anew on train and val" in told.err
    assert result_of(tmp_path, "mine")["learned_from"] == ["train", "val"]
    again = fusemix(*usual, "--fuse.refit", "true")
    assert "refit:" not in again.err
    assert "refitted on train and val" in again
    anew = fusemix(*usual, "--fuse.refit", "true", "--restart")
    assert "refit: anew on train and val" in anew.err
    told = fusemix("benchmark", tmp_path / "runs" / "mine", "--split", "val", "--root", tmp_path)
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "benchmark.split is val: with fuse.refit the adapters learn from it" in told.err
