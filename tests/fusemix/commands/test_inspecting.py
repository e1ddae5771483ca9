from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from fusemix.latents.file import LatentsFile
from fusemix.latents.writer import LatentsWriter
from tests.fusemix.commands.conftest import Fusemix
from tests.fusemix.commands.small_world import write_world

IMAGES = Path("latents/pairs/image/colours.h5")
LIGHT = """
import sys
from fusemix.cli import main
main(sys.argv[1:])
for heavy in ("torch", "transformers", "PIL", "soundfile"):
    assert heavy not in sys.modules, heavy
"""


@pytest.fixture
def recipe(fusemix: Fusemix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Extract a world of 12 items, of which one picture is broken; return its recipe."""
    recipe = write_world(tmp_path, rows=12, broken={4})
    fusemix("extract", recipe, "--root", tmp_path)
    monkeypatch.chdir(tmp_path)
    return recipe


def table(told: str) -> dict[str, str]:
    """Read a table back: name -> value, lines joined."""
    rows: dict[str, str] = {}
    name = ""
    for line in told.splitlines()[1:]:
        name = line[:16].strip() or name
        rows[name] = f"{rows.get(name, '')} {line[16:]}".strip()
    return rows


@pytest.mark.usefixtures("recipe")
def test_the_table_says_what_a_file_holds(fusemix: Fusemix) -> None:
    told = fusemix("inspect", IMAGES)
    assert (told.code, told.err) == (0, "")
    assert told.splitlines()[0] == str(IMAGES)
    rows = table(told)
    norms = np.linalg.norm(np.delete(LatentsFile(IMAGES).read().astype(float), 4, axis=0), axis=1)
    stamp = LatentsFile(IMAGES).provenance.dataset
    expected = {
        "rows": "12: 11 done, 1 failed, 0 to do",
        "splits": "train 6, val 3, test 3",
        "latents": f"3 x float16, {IMAGES.stat().st_size / 1e3:,.1f} kB",
        "norms": f"min {norms.min():.4g}, median {np.median(norms):.4g}, max {norms.max():.4g}",
        "duplicates": "0 contents in 0 rows, 0 across splits",
        "dataset": f"pairs {stamp.fingerprint} {stamp.manifest}",
        "encoder": "colours, image, in float32",
        "weights": "none",
    }
    assert {name: rows[name] for name in expected} == expected
    assert f"numpy {np.__version__}" in rows["libraries"]


@pytest.mark.usefixtures("recipe")
@pytest.mark.parametrize("columns", [40, 72, 200])
def test_the_table_keeps_to_the_terminal(fusemix: Fusemix, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    told = fusemix("inspect", IMAGES)
    assert all(len(line) <= columns for line in told.splitlines())
    assert f"numpy {np.__version__}" in table(told)["libraries"]


@pytest.mark.usefixtures("recipe")
def test_json_has_the_same_figures(fusemix: Fusemix) -> None:
    found = json.loads(fusemix("inspect", IMAGES, "--json"))
    assert (found["rows"], found["done"], found["failed"], found["to_do"]) == (12, 11, 1, 0)
    assert found["splits"] == {"train": 6, "val": 3, "test": 3}
    assert found["provenance"]["encoder"]["name"] == "colours"
    assert found["written_by"] is None
    assert "verification" not in found


@pytest.mark.usefixtures("recipe")
def test_a_file_is_inspected_while_it_is_written(fusemix: Fusemix) -> None:
    with LatentsWriter(IMAGES):
        rows = table(fusemix("inspect", IMAGES))
        assert rows["writing"].startswith(f"process {os.getpid()} on ")
    assert "writing" not in table(fusemix("inspect", IMAGES))


@pytest.mark.usefixtures("recipe")
@pytest.mark.parametrize("options", [[], ["--json"], ["--verify", "--encode", "0"]])
def test_neither_torch_nor_a_model_library_is_imported(options: list[str]) -> None:
    program = [sys.executable, "-c", LIGHT, "inspect", str(IMAGES), *options]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_good_file_is_verified_by_encoding_again(fusemix: Fusemix, recipe: Path) -> None:
    told = fusemix("inspect", IMAGES, "--verify", "--recipe", recipe, "--encode", "100")
    assert (told.code, told.err) == (0, "")
    rows = table(told)
    assert rows["checked"] == "11 rows that are done"
    assert (rows["checksums"], rows["finite"], rows["zero"], rows["result"]) == ("all well",) * 4
    assert rows["again"].startswith("11 rows encoded again: largest difference 0, smallest cosine 1.000000")
    some = json.loads(fusemix("inspect", IMAGES, "--verify", "--recipe", recipe, "--encode", "3", "--json"))
    assert some["verification"]["encoded_again"]["rows"] == 3
    assert some["verification"]["stored"]["damaged"] == {"count": 0, "first": []}


@pytest.mark.usefixtures("recipe")
def test_damaged_bytes_are_told_by_row_and_exit_code(fusemix: Fusemix) -> None:
    with h5py.File(IMAGES, "r+") as file:
        file["latents"][3, 0] = 0.75
        file["latents"][7] = np.nan
    told = fusemix("inspect", IMAGES, "--verify", "--encode", "0")
    assert told.code == 4
    rows = table(told)
    assert (rows["checksums"], rows["finite"]) == ("2 rows damaged: 3, 7", "1 rows with NaN or infinity: 7")
    assert (rows["result"], "again" in rows) == ("FAULTY", False)


def test_latents_that_the_encoder_does_not_give_are_found_though_their_checksums_are_right(
    fusemix: Fusemix, recipe: Path
) -> None:
    with LatentsWriter(IMAGES) as writer:
        latents, content = LatentsFile(IMAGES).read(), LatentsFile(IMAGES).content
        writer.commit(np.array([6, 7]), latents[[9, 7]], content[[6, 7]])
    told = fusemix("inspect", IMAGES, "--verify", "--recipe", recipe, "--json", "--encode", "12")
    assert told.code == 4
    verification = json.loads(told)["verification"]
    assert verification["stored"]["damaged"]["count"] == 0
    again = verification["encoded_again"]
    swapped, right = latents[9].astype(float), latents[6].astype(float)
    assert again["furthest_row"] == 6
    assert again["largest_difference"] == pytest.approx(np.abs(swapped - right).max())
    cosine = swapped @ right / np.linalg.norm(swapped) / np.linalg.norm(right)
    assert again["smallest_cosine"] == pytest.approx(cosine)
    assert cosine < again["cosine_needed"] == 0.99999


def test_sources_that_have_changed_or_are_gone_are_named(fusemix: Fusemix, recipe: Path, tmp_path: Path) -> None:
    Image.new("RGB", (5, 3), "white").save(tmp_path / "002.png")
    (tmp_path / "008.png").unlink()
    told = fusemix("inspect", IMAGES, "--verify", "--recipe", recipe, "--encode", "100")
    assert told.code == 4
    changed = table(told)["changed"]
    assert "row 2, '002.png': its content has changed" in changed
    assert "row 8, '008.png': FileNotFoundError" in changed


def test_the_encoder_of_a_shard_and_of_several_is_found(fusemix: Fusemix, recipe: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.yaml"
    text = recipe.read_text().replace("text: written-colours", "text: [written-colours, same-written-colours]")
    both.write_text(text)
    fusemix("extract", both, "--root", tmp_path / "other", "--shard", "2/3")
    for name in ("written-colours", "same-written-colours"):
        path = tmp_path / "other/latents/pairs/text" / f"{name}.shard-2-of-3.h5"
        told = fusemix("inspect", path, "--verify", "--recipe", both)
        assert (told.code, table(told)["shard"]) == (0, "2 of 3"), told.err
        assert table(told)["again"].startswith("4 rows encoded again: largest difference 0,")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "rows cannot be encoded again: unknown dataset 'pairs'"),
        ([], "name dataset and encoder with --recipe RECIPE, or leave it out with --encode 0"),
        (["--recipe", "none.yaml"], "no recipe file at none.yaml"),
        (["--encode", "-1"], "--encode is -1: it must be at least 0"),
    ],
)
@pytest.mark.usefixtures("recipe")
def test_rows_that_cannot_be_encoded_again(fusemix: Fusemix, options: list[str], message: str) -> None:
    told = fusemix("inspect", IMAGES, "--verify", *options)
    assert (told.code, told, len(told.err.splitlines())) == (2, "", 1)
    assert message in told.err


def test_a_recipe_of_another_dataset_is_refused(fusemix: Fusemix, recipe: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(re.sub("dataset: .*", "dataset: emoji", recipe.read_text()))
    told = fusemix("inspect", IMAGES, "--verify", "--recipe", other)
    assert told.code == 2
    assert "was made from another dataset or another version of it ('pairs'" in told.err


def test_a_recipe_without_the_encoder_is_refused(fusemix: Fusemix, recipe: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(recipe.read_text().replace("image: colours, ", ""))
    told = fusemix("inspect", IMAGES, "--verify", "--recipe", other)
    assert (told.code, f"the recipe {other} has no image encoder 'colours'" in told.err) == (2, True)


def test_another_dataset_or_encoder_is_refused(fusemix: Fusemix, recipe: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(recipe.read_text().replace("image: colours", "image: written-colours"))
    told = fusemix("inspect", IMAGES, "--verify", "--recipe", other)
    assert told.code == 2
    assert (
        "was made by another encoder or version of it (there / here: name: 'colours' / 'written-colours'" in told.err
    )
    manifest = tmp_path / "pairs.csv"
    manifest.write_text(manifest.read_text().replace("val", "test"))
    told = fusemix("inspect", IMAGES, "--verify", "--recipe", recipe)
    assert told.code == 2
    assert "was made from another dataset or another version of it ('pairs'" in told.err
