from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fusemix.adapters.identity import IdentityAdapter
from fusemix.commands.searching import default_gallery, modality_of, shortened, table
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.file import LatentsFile
from fusemix.latents.provenance import DatasetStamp
from fusemix.recipe import Recipe
from fusemix.search import Hit
from tests.extract.colours import colour, expected_latents, of_captions, of_pictures
from tests.fusemix.commands.conftest import Fusemix
from tests.fusemix.commands.heard_colours import install, of_sounds, write_sound
from tests.fusemix.commands.small_world import mended

ROWS = 12
CPU = torch.device("cpu")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the run `runs/three`, whose joint space is that of colours itself."""
    monkeypatch.syspath_prepend(install(tmp_path))
    rows = range(ROWS)
    encoders = [of_sounds(CPU), of_pictures(CPU), of_captions(CPU)]
    sources = [[f"{row:03}.wav" for row in rows], [f"{row:03}.png" for row in rows], list(map(written, rows))]
    for encoder, of_modality in zip(encoders, sources, strict=True):
        LatentsFile.from_arrays(
            tmp_path / "latents" / "three" / encoder.spec.modality / f"{encoder.spec.name}.h5",
            [f"item{row:03}" for row in rows],
            expected_latents(ROWS),
            encoder.spec,
            splits=[("train", "val", "test")[row % 3] for row in rows],
            sources=of_modality,
            dataset=DatasetStamp("three"),
        )
    specs = {encoder.spec.modality: encoder.spec for encoder in encoders}
    run = tmp_path / "runs" / "three"
    JointSpace({name: IdentityAdapter(3, 3) for name in specs}, {"shared": 0.07}, specs).save(run / "joint_space")
    named: Mapping[str, str | dict[str, Any] | list[str | dict[str, Any]]] = {
        name: spec.name for name, spec in specs.items()
    }
    Recipe("three", {"reader": "manifest", "path": "none.csv", "name": "three"}, named).save(run / "recipe.yaml")
    mended(tmp_path / "004.png")
    write_sound(tmp_path / "007.wav", 7)
    return tmp_path


def of_run(world: Path) -> list[str]:
    return ["--run", str(world / "runs" / "three"), "--root", str(world)]


def written(row: int) -> str:
    return " ".join(map(str, colour(row)))


def hit(**changed: object) -> Hit:
    usual = {
        "score": 0.5,
        "item": "1F63A",
        "source": "en-gb-scotland+f4/1F469-200D-2764-FE0F-200D-1F48B-200D-1F468.wav",
        "split": "train",
        "described_by": "kiss: woman, man",
        "dataset": "emoji-spoken",
    }
    return Hit(**{**usual, **changed})  # type: ignore[arg-type]


def test_what_a_file_is_follows_from_its_ending_and_decides_what_is_searched(world: Path, fusemix: Fusemix) -> None:
    usual = [*of_run(world), "-k", "3"]
    for query, queried, gallery, found, words in (
        (world / "007.wav", f"audio '{world}/007.wav'", "image", "007.png", written(7)),
        (world / "004.png", f"image '{world}/004.png'", "text", written(4), "004.wav"),
        (written(9), repr(written(9)), "image", "009.png", written(9)),
    ):
        told = fusemix("search", query, *usual)
        head, *hits = told.splitlines()
        assert (told.code, told.err) == (0, "")
        assert head == f"{gallery} rows of three closest to {queried}, cosine in the joint space:"
        assert len(hits) == 3
        assert hits[0].split()[1] == "1.000"
        assert f"  {found}  " in hits[0]
        assert hits[0].endswith(f"  {words}")


def test_any_modality_may_be_searched_and_is_described_in_words(world: Path, fusemix: Fusemix) -> None:
    told = fusemix("search", world / "007.wav", "--gallery", "audio", *of_run(world))
    head, best, *_ = told.splitlines()
    assert head.startswith("audio rows of three closest to audio ")
    assert best.split() == ["1", "1.000", "007.wav", "val", *written(7).split()]


def test_a_file_without_a_known_ending_needs_its_modality(world: Path, fusemix: Fusemix) -> None:
    usual = of_run(world)
    shutil.copy(world / "007.wav", world / "sound")
    told = fusemix("search", world / "sound", *usual)
    assert told.code == 2
    assert told.err == (
        f"error: {world}/sound is a file, but its ending does not say of what: give its --modality, or text to search"
        " for the words\n"
    )
    told = fusemix("search", world / "sound", "--modality", "audio", *usual)
    assert told.splitlines()[1].split()[1:3] == ["1.000", "007.png"]


def test_the_given_modality_comes_before_the_ending(world: Path, fusemix: Fusemix) -> None:
    Image.new("RGB", (5, 3), colour(7)).save(world / "picture.wav", format="PNG")
    told = fusemix("search", world / "picture.wav", "--modality", "image", *of_run(world))
    assert told.splitlines()[1].split()[1:5] == ["1.000", *written(7).split()]


@pytest.mark.parametrize("modality", ["audio", "image"])
def test_a_file_that_is_not_there_is_told(world: Path, fusemix: Fusemix, modality: str) -> None:
    told = fusemix("search", "a cat", "--modality", modality, *of_run(world))
    assert (told.code, told.err) == (
        2,
        f"error: no file at a cat: a query of the modality {modality!r} is a file\n",
    )


def test_a_broken_file_is_told(world: Path, fusemix: Fusemix) -> None:
    (world / "broken.wav").write_bytes(b"RIFF")
    told = fusemix("search", world / "broken.wav", *of_run(world))
    assert told.code == 2
    assert told.err.startswith(f"error: audio '{world}/broken.wav' cannot be read: ")
    assert told.err.count("\n") == 1


def test_words_that_name_no_file_are_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cats").mkdir()
    for query in ("a cat", "cats", "", "cat " * 4000, "cat\0.wav", "a cat. Or two", "/"):
        assert modality_of(query, ["image", "text"]) == "text"
    assert capsys.readouterr().err == ""
    assert modality_of("cat.wav", ["image", "audio", "text"]) == "text"
    assert capsys.readouterr().err == "note: no file at cat.wav: searching for the words\n"


def test_the_ending_of_a_file_may_be_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "CAT.WAV").write_bytes(b"")
    assert modality_of(str(tmp_path / "CAT.WAV"), ["audio", "text"]) == "audio"


def test_a_file_of_a_modality_that_the_run_lacks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat.wav").write_bytes(b"")
    with pytest.raises(FusemixError, match=r"cat\.wav is of the modality 'audio', and the run has only image, text"):
        modality_of(str(tmp_path / "cat.wav"), ["image", "text"])


@pytest.mark.parametrize(
    ("modalities", "query", "gallery"),
    [
        (["audio", "image", "text"], "text", "image"),
        (["audio", "image", "text"], "audio", "image"),
        (["audio", "image", "text"], "image", "text"),
        (["audio", "text"], "text", "audio"),
        (["audio", "text"], "audio", "text"),
        (["audio", "image"], "image", "audio"),
        (["audio", "motion", "touch"], "audio", "motion"),
    ],
)
def test_pictures_are_searched_before_texts_before_others(modalities: list[str], query: str, gallery: str) -> None:
    assert default_gallery(modalities, query) == gallery


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_table_fits_its_terminal(width: int) -> None:
    hits = [hit(), hit(source="en+f1/1F63A.wav", described_by="grinning cat", split="val")]
    lines = list(table(hits, width, with_dataset=False))
    assert max(map(len, lines)) <= width
    assert [line[:13] for line in lines] == ["  1   0.500  ", "  2   0.500  "]
    assert len({line.index(split) for line, split in zip(lines, ("train", "val"), strict=True)}) == 1
    assert all("en" in line for line in lines)


def test_a_table_that_is_piped_or_has_room_is_whole() -> None:
    for width in (None, 200):
        [line] = table([hit()], width, with_dataset=False)
        assert line == f"  1   0.500  {hit().source}  train  kiss: woman, man"


def test_a_hit_of_one_of_several_datasets_names_its_own() -> None:
    hits = [hit(dataset="coco", source="1.jpg", described_by=""), hit(dataset="vg", source="12.jpg", split="")]
    assert list(table(hits, None, with_dataset=True)) == [
        "  1   0.500  coco: 1.jpg  train",
        "  2   0.500  vg: 12.jpg          kiss: woman, man",
    ]


@pytest.mark.parametrize("length", range(1, 12))
def test_a_shortened_text_keeps_its_ends(length: int) -> None:
    text = "abcdefghij"
    shown = shortened(text, length)
    assert len(shown) == min(length, len(text))
    if length < len(text):
        first, last = shown.split("…")
        assert text.startswith(first)
        assert text.endswith(last)
        assert len(first) - len(last) in (0, 1)
    else:
        assert shown == text


def test_lines_of_a_terminal_are_no_longer_than_it_is_wide(
    world: Path, fusemix: Fusemix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    usual = [*of_run(world), "-k", "2"]
    piped = fusemix("search", written(3), *usual).splitlines()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = fusemix("search", written(3), *usual).splitlines()
    assert (len(piped), len(shown)) == (3, 4)
    assert " ".join(shown[:2]) == piped[0]
    assert max(map(len, shown)) <= 40
    assert all(name in line for name, line in zip(("003.png", "002.png"), shown[2:], strict=True))
