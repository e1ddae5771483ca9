from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fusemix.extract import Dataset, Sources
from fusemix.extract.datasets import emoji_spoken as module
from fusemix.extract.datasets import load_dataset
from fusemix.extract.datasets.emoji import emoji
from fusemix.extract.datasets.emoji_spoken import VOICES, spoken_names, voice_of

CATS = ["1F63A", "1F640"]


@pytest.fixture
def two_cats(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Let there be two items only, so that four names are spoken."""
    whole = emoji()
    rows = [row for row, item in enumerate(whole["text"].items) if item in CATS]
    captions = Sources([whole["text"].items[row] for row in rows], [whole["text"].values[row] for row in rows], False)
    small = replace(
        whole,
        splits={item: whole.splits[item] for item in CATS},
        modalities={"image": Sources(CATS, [f"{item}.svg" for item in CATS], are_paths=True), "text": captions},
    )
    monkeypatch.setattr(module, "emoji", lambda: small)
    return small


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speak nothing: 3,010 utterances take more than a minute."""
    monkeypatch.setattr(module, "speak_missing", lambda folder, utterances: None)


def test_items_splits_pictures_and_captions_are_those_of_emoji(silent: None, tmp_path: Path) -> None:
    spoken = load_dataset({"reader": "emoji-spoken", "path": str(tmp_path)})
    assert spoken.name == "emoji-spoken"
    assert spoken.splits == emoji().splits
    assert spoken.fingerprint == emoji().fingerprint
    for modality in ("image", "text"):
        assert spoken.stamp(modality).manifest == emoji().stamp(modality).manifest
        assert spoken.source(modality, 7) == emoji().source(modality, 7)


def test_each_caption_has_a_sound_and_its_place_is_stable(silent: None, tmp_path: Path) -> None:
    here, there = (load_dataset({"reader": "emoji-spoken", "path": str(tmp_path / name)}) for name in "ab")
    assert list(here["audio"].items) == list(here["text"].items)
    assert Counter(value.partition("/")[0] for value in here["audio"].values).keys() == set(VOICES)
    assert here.stamp("audio") == there.stamp("audio")
    assert here.stamp("audio").manifest == "527385d3d43189a6"
    assert there.source("audio", 7) == tmp_path / "b" / there["audio"].values[7]


def test_a_voice_belongs_to_an_item_and_each_speaks_its_share() -> None:
    pictograms = emoji()
    said = spoken_names(pictograms)
    assert [utterance.text for utterance in said.values()] == list(pictograms["text"].values)
    assert [utterance.voice for utterance in said.values()] == [voice_of(item) for item in pictograms["text"].items]
    assert [voice_of(item) for item in CATS] == ["en-us+f2", "en-us+m1"]
    for split in ("train", "val", "test"):
        items = [item for item, of in pictograms.splits.items() if of == split]
        counts = Counter(map(voice_of, items))
        assert set(counts) == set(VOICES)
        assert min(counts.values()) > len(items) / len(VOICES) / 2


def test_what_is_said_is_a_caption_and_each_has_a_file_of_its_own(two_cats: Dataset) -> None:
    said = {path: utterance.text for path, utterance in spoken_names(two_cats).items()}
    assert said == {
        "en-us+f2/1F63A-1.wav": "grinning cat",
        "en-us+f2/1F63A-2.wav": "smiley cat",
        "en-us+m1/1F640-1.wav": "weary cat",
        "en-us+m1/1F640-2.wav": "scream cat",
    }


def test_names_are_spoken_on_first_use_into_the_cache(
    two_cats: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spoken = load_dataset("emoji-spoken")
    folder = tmp_path / "fusemix" / "emoji-spoken"
    assert f"speak into {folder}: 4/4 utterances" in capsys.readouterr().err
    assert [spoken.source("audio", row) for row in range(4)] == [
        folder / voice_of(item) / f"{item}-{name}.wav" for item in CATS for name in (1, 2)
    ]
    written = {file: file.read_bytes() for file in folder.rglob("*.wav")}
    assert set(written) == {spoken.source("audio", row) for row in range(4)}
    load_dataset("emoji-spoken")
    assert capsys.readouterr().err == ""
    assert {file: file.read_bytes() for file in folder.rglob("*.wav")} == written


def test_the_cache_is_at_home_unless_told(
    two_cats: Dataset, silent: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_dataset("emoji-spoken").source("audio", 0) == (
        tmp_path / ".cache/fusemix/emoji-spoken" / voice_of(CATS[0]) / f"{CATS[0]}-1.wav"
    )


def test_who_drew_and_who_speaks_is_named(silent: None, tmp_path: Path) -> None:
    attribution = load_dataset({"reader": "emoji-spoken", "path": str(tmp_path)}).attribution
    assert "OpenMoji" in attribution
    assert "CC BY-SA 4.0" in attribution
    assert "eSpeak NG" in attribution
