from __future__ import annotations

from dataclasses import replace

import pytest

from fusemix.errors import FusemixError
from fusemix.latents.provenance import DatasetStamp
from fusemix.objective import Edge
from fusemix.training.splits import check_pairs, has_pair, items_of_split, with_modalities
from tests.fusemix.synthetic import world

THREE = {"image": 4, "text": 3, "audio": 2}


def test_only_the_modalities_that_are_named_stay() -> None:
    all_three = world(30, THREE)
    text_alone = replace(all_three, modalities={"text": all_three["text"]})
    kept = with_modalities([all_three, text_alone], ["image", "text"])
    assert [list(latents.modalities) for latents in kept] == [["image", "text"], ["text"]]
    assert kept[0]["image"] is all_three["image"]


def test_datasets_without_the_split_are_left_out() -> None:
    latents = world(30)
    (found,) = items_of_split([latents.split("test"), latents], "val")
    assert list(found.items) == list(latents.split("val").items)
    birds = replace(latents.split("test"), dataset=DatasetStamp("birds"))
    with pytest.raises(FusemixError, match=r"in the split 'val': .* \(arrays: train; birds: test\)$"):
        items_of_split([latents.split("train"), birds], "val")


def test_an_item_has_a_pair_where_it_has_both_modalities() -> None:
    latents = world(30, THREE, missing=1.0)
    edge = Edge("image", "text")
    lonely = latents.at(((latents["image"].counts == 0) | (latents["text"].counts == 0)).nonzero()[:, 0])
    assert has_pair(latents, edge)
    assert not has_pair(lonely, edge)
    assert not has_pair(replace(latents, modalities={"image": latents["image"]}), edge)
    check_pairs([lonely, latents], [edge])
    with pytest.raises(FusemixError, match=r"both modalities of an edge \(image-text\): nothing to train on"):
        check_pairs([lonely], [edge])


def test_several_splits_are_taken_together_in_the_order_of_the_items() -> None:
    latents = world(30)
    (found, other) = items_of_split([latents, latents.split("val"), latents.split("test")], "train", "val")
    assert list(found.items) == [i for i, of in zip(latents.items, latents.splits, strict=True) if of != "test"]
    assert set(other.splits) == {"val"}
    with pytest.raises(FusemixError, match=r"no item in the split 'train' or 'val': .* \(arrays: test\)$"):
        items_of_split([latents.split("test")], "train", "val")
