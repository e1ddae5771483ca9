from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from fusemix.commands.baking import _repeated
from tests.fusemix.commands.conftest import Fusemix
from tests.fusemix.commands.small_world import write_world

QUICK = ("--methods", "ridge,fusemix", "--fractions", "0.5,1", "--seeds", "2", "--budget", "1")


def test_a_bake_off_leaves_a_result_a_page_and_a_picture(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path, 24)
    told = fusemix("bakeoff", recipe, "--root", tmp_path, *QUICK)
    assert told.code == 0, told.err
    results = tmp_path / "results" / "bakeoff"
    assert {path.name for path in results.iterdir()} == {"mine.json", "mine.md", "mine.png"}
    record = json.loads((results / "mine.json").read_text())
    assert record["schema_version"] >= 1
    assert (record["benchmark"], record["recipe"]) == ("bakeoff", "mine")
    assert {"torch", "fusemix", "cores"} <= set(record["machine"])
    assert [(cell["method"], cell["fraction"], cell["items"]) for cell in record["cells"]] == [
        ("ridge", 0.5, 6),
        ("fusemix", 0.5, 6),
        ("ridge", 1.0, 12),
        ("fusemix", 1.0, 12),
    ]
    page = (results / "mine.md").read_text()
    assert "](mine.png)" in page
    assert f"```sh\nfusemix bakeoff mine.yaml {' '.join(QUICK)}\n```" in page
    assert str(tmp_path) not in page, "a page for others"
    with Image.open(results / "mine.png") as picture:
        assert picture.format == "PNG"
    table = told[told.index("Bake-off on ") :]
    assert max(map(len, table.partition("\n\nresult: ")[0].splitlines())) <= 80
    assert table.splitlines()[-3:] == [f"{kind}: {results}/mine.{ending}" for kind, ending in KINDS]
    # What was run is kept: the second time, times and all else are the same.
    again = fusemix("bakeoff", recipe, "--root", tmp_path, *QUICK)
    assert again[again.index("Bake-off on ") :] == table
    assert len(list((tmp_path / "runs" / "mine-bakeoff").iterdir())) == 4 + 7


KINDS = (("result", "json"), ("page", "md"), ("figure", "png"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "ridge,fusmix"], "unknown method 'fusmix': did you mean 'fusemix'?"),
        (["--methods", "cca,cca"], "--methods cca,cca: it must be different names, one or more"),
        (["--fractions", "0,1"], "--fractions 0.0,1.0: it must be different numbers above 0, up to 1"),
        (["--fractions", "0.1,2"], "--fractions 0.1,2.0: it must be different numbers above 0, up to 1"),
        (["--fractions", "0.1;1"], "--fractions 0.1;1: it must be numbers with commas, such as 0.1,0.3,1"),
        (["--seeds", "0"], "--seeds 0: it must be at least 1"),
        (["--budget", "9"], "--budget 9: it must be 1 to 4 configurations"),
        (["--pair", "image", "sound"], "--pair image sound: choose two of image, text with --pair A B"),
        (["--seed", "1"], "unknown option --seed: did you mean '--seeds'?"),
        (
            ["--dataset", "[a.csv, b.csv]"],
            "dataset: fusemix bakeoff compares on one dataset, and the recipe has 2: give one with --dataset",
        ),
    ],
)
def test_bad_input_is_one_line_before_anything_is_run(
    fusemix: Fusemix, tmp_path: Path, arguments: list[str], said: str
) -> None:
    recipe = write_world(tmp_path, 4)
    told = fusemix("bakeoff", recipe, "--root", tmp_path, *arguments)
    assert (told.code, told, told.err) == (2, "", f"error: {said}\n")
    assert not (tmp_path / "latents").exists()


def test_a_fraction_with_too_few_pairs_is_one_line(fusemix: Fusemix, tmp_path: Path) -> None:
    told = fusemix("bakeoff", write_world(tmp_path, 24), "--root", tmp_path, "--fractions", "0.1")
    assert told.code == 2
    assert told.err.splitlines()[-1] == (
        "error: --fractions 0.1: it leaves 1 of 12 training items with both image and text, and at least 4 are needed"
    )


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["emoji", "--root", "/home/me"], "fusemix bakeoff emoji"),
        (["/home/me/mine.yaml", "--root=/home/me", "--seeds", "2"], "fusemix bakeoff mine.yaml --seeds 2"),
        (["emoji", "--device", "cuda", "--fractions=0.5,1"], "fusemix bakeoff emoji --fractions=0.5,1"),
        (["emoji", "--fuse.steps", "9", "--name", "a b"], "fusemix bakeoff emoji --fuse.steps 9 --name 'a b'"),
    ],
)
def test_the_command_of_a_page_says_nothing_of_the_machine(arguments: list[str], command: str) -> None:
    assert _repeated(arguments) == command
