from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fusemix.errors import FusemixError
from fusemix.extract import Dataset, Sources

PAIRS = Dataset(
    "pairs",
    {"a": "train", "b": "test", "c": "train"},
    {
        "image": Sources(["a", "b"], ["x/a.png", "b.png"], are_paths=True),
        "text": Sources(["b", "b", "c"], ["one", "two", "three"], are_paths=False),
    },
    Path("/data"),
    "by somebody",
)


def test_rows_carry_the_split_of_their_item() -> None:
    rows = PAIRS.rows("text")
    assert (rows.items, rows.sources) == (["b", "b", "c"], ["one", "two", "three"])
    assert rows.splits == ["test", "test", "train"]


def test_a_path_lies_below_the_root_and_a_caption_is_itself() -> None:
    assert PAIRS.source("image", 0) == Path("/data/x/a.png")
    assert PAIRS.source("text", 1) == "two"


def test_an_unknown_modality_is_answered_with_the_nearest() -> None:
    with pytest.raises(FusemixError, match="dataset 'pairs' has no 'images': did you mean 'image'"):
        PAIRS["images"]


def test_a_row_of_an_unknown_item_is_refused() -> None:
    with pytest.raises(FusemixError, match="pairs: text row of the unknown item 'd'"):
        replace(PAIRS, modalities={"text": Sources(["a", "d"], ["one", "two"], are_paths=False)})


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.png", "x/../../secret.png"])
def test_a_path_that_leaves_the_folder_is_refused(path: str) -> None:
    with pytest.raises(FusemixError, match=f"image path {path!r} leaves the dataset's folder"):
        replace(PAIRS, modalities={"image": Sources(["a"], [path], are_paths=True)})


def test_a_caption_may_look_like_any_path() -> None:
    text = Sources(["a"], ["../../etc/passwd"], are_paths=False)
    assert replace(PAIRS, modalities={"text": text}).source("text", 0) == "../../etc/passwd"


def test_the_stamp_tells_dataset_splits_and_rows_apart() -> None:
    image, text = PAIRS.stamp("image"), PAIRS.stamp("text")
    assert image.name == "pairs"
    assert image.attribution == "by somebody"
    assert image.fingerprint == text.fingerprint
    assert image.manifest != text.manifest
    reordered = replace(PAIRS, splits=dict(reversed(list(PAIRS.splits.items()))))
    assert reordered.fingerprint == PAIRS.fingerprint
    assert replace(PAIRS, splits={**PAIRS.splits, "a": "val"}).fingerprint != PAIRS.fingerprint


@pytest.mark.parametrize(
    ("items", "captions"),
    [(["b", "b", "c"], ["two", "one", "three"]), (["b", "c", "c"], ["one", "two", "three"]), (["b"], ["one"])],
)
def test_other_rows_of_the_same_items_have_another_manifest(items: list[str], captions: list[str]) -> None:
    changed = replace(PAIRS, modalities={"text": Sources(items, captions, are_paths=False)})
    assert changed.stamp("text").manifest != PAIRS.stamp("text").manifest
    assert changed.stamp("text").fingerprint == PAIRS.stamp("text").fingerprint
