"""`fusemix benchmark RUN` and `fusemix compare`: figures, queries as JSON lines, and what cannot be measured."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from fusemix.cli import main
from fusemix.commands.measuring import run_folder
from fusemix.joint_space import JointSpace
from tests.fusemix.commands.conftest import Fusemix
from tests.fusemix.commands.small_world import install_encoders, write_world


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root with a run of 16 test pictures and captions, some of which are equal."""
    folder = tmp_path_factory.mktemp("fused")
    recipe = write_world(folder, rows=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(install_encoders(tmp_path_factory.mktemp("package")))
        before = signal.getsignal(signal.SIGTERM)
        main(["fuse", str(recipe), "--root", str(folder)])
        signal.signal(signal.SIGTERM, before)
    return folder


@pytest.fixture
def root(fused: Path, tmp_path: Path) -> Path:
    """Return a copy, so that results of one test are not those of another."""
    copied = tmp_path / "root"
    shutil.copytree(fused, copied, ignore=shutil.ignore_patterns("*.png", "results", "training_state.pt"))
    return copied


def result_of(root: Path, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((root / "results" / "retrieval" / f"{name}.json").read_text())
    return read


def test_a_finished_run_has_the_figures_that_training_ended_with(fusemix: Fusemix, root: Path, fused: Path) -> None:
    told = fusemix("benchmark", root / "runs/mine", "--root", root)
    assert (told.code, told.err) == (0, "")
    mine, before = (result_of(folder, "mine") for folder in (root, fused))
    assert mine == before
    assert told.startswith("\nRetrieval on pairs, test split: 16 items, protocol generic\n")
    assert max(map(len, told.splitlines()[:-1])) <= 80
    assert (mine["protocol"]["name"], mine["rows"]) == ("generic", {"image": 16, "text": 16})
    assert {"fingerprint", "joint_space", "machine", "per_query", "warnings"} <= mine.keys()


def test_another_split_and_protocol_have_a_result_of_their_own(fusemix: Fusemix, root: Path) -> None:
    assert fusemix("benchmark", root / "runs/mine", "--root", root, "--split", "val").code == 0
    assert (result_of(root, "mine-val")["split"], result_of(root, "mine-val")["items"]) == ("val", 16)
    folds = fusemix("benchmark", root / "runs/mine", "--root", root, "--benchmark.protocol", "coco-1k")
    assert "protocol coco-1k, mean of 5 folds" in folds
    assert "warning: 16 items and 16 captions are not what the protocol coco-1k" in " ".join(folds.split())
    read = result_of(root, "mine-coco-1k")
    assert (read["protocol"]["folds"], read["draws"], len(read["warnings"])) == (5, 9, 1)
    assert sorted(path.name for path in (root / "results" / "retrieval").glob("*.json")) == [
        "mine-coco-1k.json",
        "mine-val.json",
    ]


def test_a_run_is_measured_on_another_dataset_by_its_latents(fusemix: Fusemix, root: Path) -> None:
    shutil.copytree(root / "latents" / "pairs", root / "latents" / "others")
    told = fusemix("benchmark", root / "runs/mine", "--root", root, "--dataset", "others")
    assert (told.code, told.err) == (0, "")
    assert f"result: {root}/results/retrieval/mine-others.json" in told


def test_every_query_is_told_with_its_best_wrong_answer(fusemix: Fusemix, root: Path) -> None:
    file = root / "queries.jsonl"
    told = fusemix("benchmark", root / "runs/mine", "--root", root, "--per-query", file, "--benchmark.k", "[7]")
    assert (told.code, told.err) == (0, "")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    read = result_of(root, "mine")
    assert f"queries: {file}, {len(lines):,} lines" in told
    for direction in read["directions"]:
        mine = [line for line in lines if line["direction"] == direction["name"]]
        assert len(mine) == direction["queries"]
        untied = [line for line in mine if not line["tied"]]
        assert all((line["rank"] == 1) == (line["right"]["score"] > line["wrong"]["score"]) for line in untied)
        hits = sum(
            max(0.0, min(1.0, (7 - line["rank"] + line["tied"] / 2 + 1) / (line["tied"] + 1))) for line in mine
        )
        assert hits / len(mine) == pytest.approx(direction["metrics"]["R@7"]["value"])
    assert {line["source"][-4:] for line in lines if line["direction"] == "image to text"} == {".png"}


def test_a_table_to_paste_is_markdown(fusemix: Fusemix, root: Path) -> None:
    told = fusemix("benchmark", root / "runs/mine", "--root", root, "--markdown")
    assert "\n|  | image to text | text to image |\n|---|---:|---:|\n" in told
    assert "\n| R@1 % | " in told


def test_what_is_not_as_it_should_be_is_one_line(fusemix: Fusemix, root: Path) -> None:
    run = root / "runs" / "mine"
    (root / "empty").mkdir()
    for arguments, message in (
        ([root / "empty"], f"no finished run in {root}/empty; train one with: fusemix fuse RECIPE"),
        (
            [run, "--split", "dev"],
            "there is no item of the split 'dev' at all in pairs: nothing to measure (splits: te",
        ),
        ([run, "--split", "val", "--benchmark.protocol", "clotho"], "clotho is for the split 'test', not for 'val'"),
        ([run, "--fuse.steps", "3"], f"{run} is measured as it was trained: fuse cannot be changed"),
        ([run, "--restart"], f"--run, --restart and --pair are for recipes: the run in {run} is measured as it is"),
        (
            [root / "mine.yaml", "--per-query", "x"],
            "--per-query is for a finished run: fusemix benchmark runs/NAME --per-query",
        ),
    ):
        told = fusemix("benchmark", *arguments, "--root", root)
        assert (told.code, told.err.count("\n"), told.err[:7]) == (2, 1, "error: ")
        assert message in told.err
    assert not (root / "results").exists()


def test_a_folder_that_is_called_as_a_recipe_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji").mkdir()
    assert run_folder("emoji") is None
    (tmp_path / "emoji" / "recipe.yaml").touch()
    assert run_folder("emoji") == Path("emoji")


def test_latents_of_another_encoder_than_the_run_s_are_one_line(fusemix: Fusemix, root: Path) -> None:
    config = root / "runs" / "mine" / "joint_space" / "config.json"
    changed = json.loads(config.read_text())
    changed["encoders"]["text"]["revision"] = "of another day"
    config.write_text(json.dumps(changed))
    told = fusemix("benchmark", root / "runs/mine", "--root", root)
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "the text adapter was trained for another encoder than these latents come from" in told.err


def shaken(root: Path, name: str, noise: float) -> Path:
    """Return a copy of the run whose adapters are another's."""
    folder = root / "runs" / name
    shutil.copytree(root / "runs" / "mine", folder)
    space = JointSpace.load(folder / "joint_space")
    with torch.no_grad():
        for parameter in space.adapters.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    space.save(folder / "joint_space")
    return folder


def test_runs_are_compared_by_what_is_stored_or_measured_now(fusemix: Fusemix, root: Path) -> None:
    mine, other = root / "runs" / "mine", shaken(root, "other", 0.5)
    told = fusemix("compare", mine, other, "--root", root)
    assert told.code == 0, told.err
    assert [line for line in told.err.splitlines() if line.startswith("measuring")] == [
        f"measuring {mine}",
        f"measuring {other}",
    ]
    assert told.startswith("pairs, test split: 16 items, protocol generic\n")
    assert max(map(len, told.splitlines()[:-1])) <= 80
    read = json.loads((root / "results" / "compare" / "mine-other.json").read_text())
    [pair] = read["pairs"]
    for direction, of in zip(pair["directions"], result_of(root, "other")["directions"], strict=True):
        assert direction["metrics"]["R@5"]["b"] == pytest.approx(of["metrics"]["R@5"]["value"])
    again = fusemix("compare", mine, root / "results/retrieval/other.json", "--root", root, "--changed", "0")
    assert (again.code, again.err) == (0, "")
    shutil.rmtree(other)
    shaken(root, "other", 0.1)
    assert f"measuring {other}" in fusemix("compare", mine, other, "--root", root, "--markdown").err, "trained anew"
    seeds = fusemix("compare", mine, f"{mine},{other}", "--root", root, "--out", root / "seeds.json")
    assert (seeds.code, seeds.err) == (0, "")
    assert "seeds, lowest to highest" in seeds
    assert json.loads((root / "seeds.json").read_text())["pairs"][0]["b"] == f"{mine}, {other}"


def test_runs_that_cannot_be_compared_are_one_line(fusemix: Fusemix, root: Path) -> None:
    run = root / "runs" / "mine"
    for options in ([], ["--split", "val"]):
        assert fusemix("benchmark", run, "--root", root, *options).code == 0
    for arguments, message in (
        ([run], "fusemix compare takes two runs or more"),
        ([run, root / "results/retrieval/mine-val.json"], "cannot be compared: the splits are 'test' and 'val'"),
        ([run, root / "runs/no"], f"no run at {root}/runs/no: name the folder of one, or the JSON of its result"),
        ([run, root / "runs"], f"no finished run in {root}/runs; train one with: fusemix fuse RECIPE"),
        ([run, run, "--dataset", "coco"], f"{run} has results on pairs: choose one with --dataset"),
    ):
        told = fusemix("compare", *arguments, "--root", root)
        assert (told.code, told.err.count("\n"), told.err[:7]) == (2, 1, "error: "), told.err
        assert message in told.err
