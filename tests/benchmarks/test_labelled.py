from __future__ import annotations

import numpy as np
import pytest
import torch

from fusemix.benchmarks.labelled import holdout, labelled_rows, leave_one_out, texts_as_labels
from fusemix.errors import FusemixError
from fusemix.latents.paired import PairedLatents

from .labelled_world import clusters, labelled
from .small_world import encoded_by, identity_space, small_world


@pytest.fixture(scope="module")
def world() -> PairedLatents:
    return small_world()


def test_rows_have_the_class_of_their_item(world: PairedLatents) -> None:
    labels: dict[str, str | int] = {item: "odd" if int(item[-1]) % 2 else "even" for item in world.items}
    rows = labelled_rows(world, "image", labels)
    of = world["image"]
    assert rows.names == ("even", "odd")
    assert torch.equal(rows.features, of.values[of.rows])
    assert rows.items.tolist() == of.item_of_row.tolist()
    assert [rows.names[label] for label in rows.labels] == [labels[world.items[item]] for item in rows.items]
    assert rows.splits.tolist() == [world.splits[item] for item in rows.items]
    assert (rows.kind, rows.modality, rows.dataset.name, rows.unlabelled) == ("latents", "image", "small", 0)


def test_items_without_a_class_are_left_out_and_counted(world: PairedLatents) -> None:
    pictured = [item for item, count in zip(world.items, world["image"].counts, strict=True) if count > 0]
    rows = labelled_rows(world, "image", dict.fromkeys(pictured[5:], 1), ["a", "b"])
    assert rows.unlabelled == 5
    assert {world.items[item] for item in rows.items} == set(pictured[5:])
    assert set(rows.labels) == {1}


def test_rows_are_embedded_where_a_space_is_given(world: PairedLatents) -> None:
    space = identity_space()
    rows = labelled_rows(world, "image", dict.fromkeys(world.items, 0), ["a", "b"], space)
    of = world["image"]
    assert rows.kind == "embeddings"
    assert torch.equal(rows.features, space.encode("image", of.values[of.rows]))


def test_latents_of_another_encoder_than_the_space_are_refused(world: PairedLatents) -> None:
    given, trained = encoded_by(world, "mine"), encoded_by(world, "theirs")
    space = identity_space(specs={"image": trained["image"].spec})
    with pytest.raises(FusemixError, match="the image adapter was trained for another encoder"):
        labelled_rows(given, "image", dict.fromkeys(world.items, 0), ["a", "b"], space)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (2, "item 'item003' has the label 2, outside the 2 classes 0 to 1"),
        (-1, "item 'item003' has the label -1, outside the 2 classes 0 to 1"),
        ("dgo", "item 'item003' has the label 'dgo', which is no class: did you mean 'dog'?"),
    ],
)
def test_labels_outside_the_classes_are_refused(world: PairedLatents, label: str | int, said: str) -> None:
    labels: dict[str, str | int] = {**dict.fromkeys(world.items, 0), "item003": label}
    with pytest.raises(FusemixError) as error:
        labelled_rows(world, "image", labels, ["cat", "dog"])
    assert str(error.value) == said


def test_a_name_of_several_classes_cannot_be_a_label(world: PairedLatents) -> None:
    names = ["missile", "dog", "missile"]
    with pytest.raises(FusemixError, match="'missile', the name of several classes: give labels as numbers"):
        labelled_rows(world, "image", dict.fromkeys(world.items, "missile"), names)
    rows = labelled_rows(world, "image", dict.fromkeys(world.items, "dog"), names)
    assert set(rows.labels) == {1}
    assert set(labelled_rows(world, "image", dict.fromkeys(world.items, 2), names).labels) == {2}


def test_labels_of_other_items_are_refused(world: PairedLatents) -> None:
    with pytest.raises(FusemixError, match="no image row of 'small' has a class: are these the labels of its items"):
        labelled_rows(world, "image", {"nothing": 0}, ["a", "b"])


def test_the_text_of_an_item_is_its_label() -> None:
    latents = {"audio": np.zeros((3, 2), np.float32), "text": np.zeros((4, 2), np.float32)}
    items = {"audio": ["x", "y", "z"], "text": ["x", "y", "y", "z"]}
    splits = {"x": "fold1", "y": "fold2", "z": "fold2"}
    texts = ["dog", "sea waves", "sea waves", "dog"]
    joined = PairedLatents.from_arrays(latents, items, splits, sources={"text": texts})
    assert texts_as_labels(joined) == {"x": "dog", "y": "sea waves", "z": "dog"}
    texts[2] = "rain"
    joined = PairedLatents.from_arrays(latents, items, splits, sources={"text": texts})
    with pytest.raises(FusemixError, match="item 'y' has the texts 'sea waves' and 'rain': a class is named by one"):
        texts_as_labels(joined)


def test_holdout_takes_the_splits_by_name() -> None:
    rows = clusters(60, 3, 4, noise=0.1, seed=0, splits=("train", "val", "test", "other"))
    [fold] = holdout(rows)
    assert fold.name == "test"
    for places, name in ((fold.train, "train"), (fold.validation, "val"), (fold.test, "test")):
        assert places.tolist() == [place for place, split in enumerate(rows.splits) if split == name]
    [fold] = holdout(rows, "val")
    assert set(rows.splits[fold.test]) == {"val"}
    assert len(fold.validation) == 0


def test_splits_that_are_not_there_are_refused() -> None:
    rows = labelled(np.zeros((4, 2)), [0, 1, 0, 1], classes=2, splits=["train", "train", "test", "test"])
    assert len(holdout(rows)[0].validation) == 0
    with pytest.raises(FusemixError, match=r"no image row of 'small' .* the split 'tset' .*: test, train\)"):
        holdout(rows, "tset")
    with pytest.raises(FusemixError, match="must not be 'train'"):
        holdout(rows, "train")
    with pytest.raises(FusemixError, match="needs at least three folds, 'small' has test, train"):
        leave_one_out(rows)


def test_each_fold_is_left_out_once_and_the_next_one_validates() -> None:
    names = [f"fold{number}" for number in range(1, 11)]
    rows = clusters(80, 3, 4, noise=0.1, seed=0, splits=names)
    folds = leave_one_out(rows)
    assert [fold.name for fold in folds] == names
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(80))
    for number, fold in enumerate(folds):
        assert set(rows.splits[fold.test]) == {names[number]}
        assert set(rows.splits[fold.validation]) == {names[(number + 1) % 10]}
        assert sorted([*fold.train, *fold.validation, *fold.test]) == list(range(80))


def test_some_rows_keep_all_that_is_known_of_them() -> None:
    rows = clusters(20, 3, 4, noise=0.1, seed=0)
    some = rows.at(np.array([7, 2, 2]))
    assert torch.equal(some.features, rows.features[[7, 2, 2]])
    assert some.labels.tolist() == rows.labels[[7, 2, 2]].tolist()
    assert (some.items.tolist(), some.splits.tolist()) == ([7, 2, 2], rows.splits[[7, 2, 2]].tolist())
    assert (some.names, some.dataset, len(some)) == (rows.names, rows.dataset, 3)
