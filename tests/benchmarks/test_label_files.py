from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fusemix.benchmarks.label_files import read_labels
from fusemix.benchmarks.labelled import check_labelled, class_numbers
from fusemix.errors import FusemixError
from fusemix.latents.file import LatentsFile
from fusemix.latents.provenance import EncoderSpec

from .small_world import small_world

NAMES = ("cat", "7", "dog")


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "item,label,image\na,cat,1.png\nb, 2 ,2.png\nc,7,3.png\nd,,4.png\na,cat,5.png\n"),
        ("labels.TSV", "label\titem\ncat\ta\n2\tb\n7\tc\n\td\n"),
        ("labels.json", json.dumps({"a": "cat", "b": 2, "c": "7", "d": None})),
    ],
)
def test_a_label_is_a_name_or_else_a_number(tmp_path: Path, name: str, text: str) -> None:
    path = written(tmp_path / name, text)
    assert read_labels(path, NAMES) == {"a": "cat", "b": 2, "c": "7", "d": None}
    assert read_labels(path) == {"a": "cat", "b": "2", "c": "7", "d": None}


def test_captions_may_be_labels(tmp_path: Path) -> None:
    spec = EncoderSpec(name="x", modality="text", dim=2, weights="none")
    LatentsFile.from_arrays(tmp_path / "x.h5", ["a", "b"], np.ones((2, 2)), spec, sources=["dog", "sea waves"])
    assert read_labels(tmp_path / "x.h5") == {"a": "dog", "b": "sea waves"}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("labels.txt", "a cat", "{path}: labels are read from a file that ends in .csv, .tsv, .json or .h5"),
        (
            "labels.csv",
            "item,lable\na,cat\n",
            "{path}, line 1: no column 'label', only 'item', 'lable': did you mean",
        ),
        ("labels.csv", "item,label\na,cat\na,dog\n", "{path}: item 'a' has the labels 'cat' and 'dog'"),
        ("labels.json", "[", "the labels in {path} cannot be read: "),
        ("labels.json", "[]", "{path} must hold an object, item -> label: "),
        ("labels.json", '{"a": 1.5}', "{path}: item 'a' has the label 1.5: give a name or a number"),
        ("labels.json", '{"a": true}', "{path}: item 'a' has the label True: give a name or a number"),
    ],
)
def test_a_file_that_holds_no_labels_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = written(tmp_path / name, text)
    with pytest.raises(FusemixError) as error:
        read_labels(path)
    assert str(error.value).startswith(said.replace("{path}", str(path)))
    assert "\n" not in str(error.value)


def test_an_item_without_a_label_is_named() -> None:
    world = small_world()
    items = [item for item, count in zip(world.items, world["image"].counts, strict=True) if count]
    check_labelled(world, "image", items, "x.csv")
    with pytest.raises(FusemixError, match=rf"^x.csv has no label for the item '{items[4]}': add it, empty where"):
        check_labelled(world, "image", items[:4] + items[5:], "x.csv")
    with pytest.raises(FusemixError, match=rf"^x.csv has no label for the item '{items[0]}' \(and 1 more\): add it"):
        check_labelled(world, "image", items[2:], "x.csv")
    with pytest.raises(FusemixError, match=rf"^x.csv has no label for any of the {len(items)} items of 'small'"):
        check_labelled(world, "image", ["other"], "x.csv")


def test_of_many_classes_some_are_listed() -> None:
    names = [f"class {number}" for number in range(40)]
    with pytest.raises(FusemixError, match=r"which is no class: there are 40, such as 'class 0', .*, 'class 11'$"):
        class_numbers({"a": "zebra"}, names)
    with pytest.raises(FusemixError, match="which is no class: did you mean 'class 31'"):
        class_numbers({"a": "clas 31"}, names)
