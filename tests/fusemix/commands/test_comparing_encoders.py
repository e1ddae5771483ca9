from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from fusemix.benchmarks.cka import cka_matrix
from fusemix.latents.file import LatentsFile
from tests.fusemix.commands.conftest import Fusemix
from tests.fusemix.commands.shades import write_shades

IMAGES, TEXTS = "latents/shades/image/colours.h5", "latents/shades/text/written-colours.h5"
ELSEWHERE = "latents/folded/text/written-colours.h5"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_shades(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("root")
def test_the_matrix_is_shown_kept_and_drawn(fusemix: Fusemix) -> None:
    told = fusemix("cka", IMAGES, TEXTS, "--plot", "pictures/cka.png")
    value = cka_matrix([LatentsFile(IMAGES), LatentsFile(TEXTS)]).values[0][1]
    assert (told.code, told.err) == (0, "")
    lines = told.splitlines()
    assert lines[:5] == [
        "Linear CKA of latents of shades, train split: 30 items in common",
        "",
        "                            1     2",
        "1  image/colours         1.00",
        f"2  text/written-colours  {value:.2f}  1.00",
    ]
    most = f"Most alike of different modalities, {value:.2f}: image/colours and"
    assert f"{most}\n  text/written-colours" in told, "a name is not cut at its hyphen"
    assert lines[-2:] == ["result: results/cka/shades-train.json", "heat map: pictures/cka.png"]
    record = json.loads(Path("results/cka/shades-train.json").read_text())
    assert record["values"][0][1] == pytest.approx(value)
    assert (record["benchmark"], record["files"]) == ("cka", [IMAGES, TEXTS])
    with Image.open("pictures/cka.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.usefixtures("root")
def test_bad_input_is_one_line(fusemix: Fusemix) -> None:
    for arguments, said in (
        ([IMAGES], "CKA compares two latents files at least, not 1"),
        ([IMAGES, IMAGES], f"{IMAGES} is given twice"),
        ([IMAGES, "none.h5"], "no latents file at none.h5; make it with: fusemix extract RECIPE"),
        ([IMAGES, ELSEWHERE], f"{IMAGES} and {ELSEWHERE} are of different datasets: 'shades' (no fingerprint) and"),
        (
            [IMAGES, TEXTS, "--split", "tset"],
            f"{IMAGES} has no latent of the split 'tset' (splits with latents: test,",
        ),
        ([IMAGES, TEXTS, "--plot", "a.pdf"], "--plot a.pdf: the heat map is drawn as PNG: name a file that ends in"),
    ):
        told = fusemix("cka", *arguments)
        assert (told.code, told) == (2, "")
        assert told.err.startswith(f"error: {said}")
        assert told.err.count("\n") == 1
