"""Protocols: chosen by name, counts told, folds in the published order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fusemix.benchmarks.protocols import (
    AUDIOCAPS,
    CLOTHO,
    COCO_1K,
    COCO_5K,
    FLICKR30K_1K,
    GENERIC,
    PROTOCOLS,
    choose_protocol,
)
from fusemix.errors import FusemixError
from fusemix.extract.datasets import karpathy, sound_captions
from fusemix.latents.paired import PairedLatents


@pytest.mark.parametrize(
    ("dataset", "split", "expected"),
    [
        ("coco", "test", COCO_5K),
        ("flickr30k", "test", FLICKR30K_1K),
        ("audiocaps", "test", AUDIOCAPS),
        ("clotho", "test", CLOTHO),
        ("coco", "val", GENERIC),
        ("emoji", "test", GENERIC),
    ],
)
def test_a_dataset_brings_the_protocol_of_its_test_split(dataset: str, split: str, expected: object) -> None:
    assert choose_protocol(dataset, split) is expected


def test_a_protocol_is_chosen_by_name() -> None:
    assert choose_protocol("coco", "test", "coco-1k") is COCO_1K
    assert choose_protocol("coco", "val", "generic") is GENERIC


@pytest.mark.parametrize(
    ("split", "name", "message"),
    [
        ("test", "coco-5", "there is no 'coco-5': did you mean 'coco-5k'?"),
        ("test", "xyz", "there is no 'xyz': choose one of audiocaps, clotho, coco-1k"),
        ("val", "clotho", "clotho is for the split 'test', not for 'val': measure that, or choose generic"),
    ],
)
def test_a_protocol_that_cannot_be_is_one_line(split: str, name: str, message: str) -> None:
    with pytest.raises(FusemixError) as refused:
        choose_protocol("coco", split, name)
    assert str(refused.value).startswith(f"benchmark.protocol: {message}")
    assert "\n" not in str(refused.value)


def test_every_protocol_says_where_it_is_from() -> None:
    assert all(protocol.source and PROTOCOLS[protocol.name] is protocol for protocol in PROTOCOLS.values())
    assert all(of.source for protocol in PROTOCOLS.values() for of in protocol.published)


def test_published_counts_are_those_of_the_readers() -> None:
    counts = {
        "coco-5k": (karpathy.COCO_ITEMS, karpathy.COCO_CAPTIONS),
        "flickr30k-1k": (karpathy.FLICKR30K_ITEMS, karpathy.FLICKR30K_CAPTIONS),
        "audiocaps": (sound_captions.AUDIOCAPS_ITEMS, sound_captions.AUDIOCAPS_CAPTIONS),
    }
    for name, (items, captions) in counts.items():
        first = PROTOCOLS[name].published[0]
        assert (first.items, first.captions) == (items["test"], captions["test"])


def test_other_counts_are_warned_of_and_published_ones_are_not() -> None:
    assert COCO_5K.warnings(5_000, 25_010) == COCO_5K.warnings(5_000, 25_000) == GENERIC.warnings(7, 8) == []
    [said] = COCO_5K.warnings(5_000, 24_809)
    assert said == (
        "5,000 items and 24,809 captions are not what the protocol coco-5k was published with: 5,000 and 25,010"
        " (CLIP_benchmark: all captions); 5,000 and 25,000 (eccv-caption: five each); figures are not comparable with"
        " published ones"
    )
    assert "clips vanish" in AUDIOCAPS.warnings(957, 4_785)[0]


def test_k_of_ones_own_come_beside_those_of_the_protocol() -> None:
    assert COCO_5K.at((1, 100)).metrics == ("R@1", "R@5", "R@10", "R@100")
    assert CLOTHO.at((1, 5, 10)) == CLOTHO
    assert GENERIC.at((50, 2)).metrics == ("R@2", "R@50", "MRR")
    assert GENERIC.at((50, 2)).k == (2, 50)


def shuffled_items(count: int) -> tuple[PairedLatents, list[str]]:
    """Return latents whose rows are not in the order of their items' ids, and the ids in the order of the rows."""
    ids = [f"{index:02}" for index in np.random.default_rng(0).permutation(count)]
    rows = {"image": ids, "text": [item for item in ids for _ in range(2)]}
    latents = {name: np.ones((len(of), 3), np.float32) for name, of in rows.items()}
    return PairedLatents.from_arrays(latents, rows, dict.fromkeys(ids, "test"), dataset="coco"), ids


def test_folds_follow_each_other_in_the_published_order() -> None:
    latents, ids = shuffled_items(23)
    folds = [latents.at(positions) for positions in COCO_1K.galleries(latents)]
    assert [len(fold) for fold in folds] == [5, 5, 5, 4, 4]
    assert [sorted(fold.items) for fold in folds] == [
        sorted(ids[start:stop]) for start, stop in ((0, 5), (5, 10), (10, 15), (15, 19), (19, 23))
    ]
    assert all(len(fold["text"].rows) == 2 * len(fold) for fold in folds)
    assert [one.tolist() for one in COCO_5K.galleries(latents)] == [list(range(23))]


def test_items_without_the_first_modality_are_shared_among_the_folds() -> None:
    latents, ids = shuffled_items(22)
    rows = latents["image"].rows
    lacking = rows < 7
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), (~lacking).long().cumsum(0)])
    image = replace(latents["image"], rows=rows[~lacking], offsets=offsets)
    folds = COCO_1K.galleries(replace(latents, modalities={"image": image, "text": latents["text"]}))
    assert sorted(torch.cat(folds).tolist()) == list(range(22))
    assert [len(fold) for fold in folds] == [4, 4, 4, 5, 5]
    assert [sum(ids.index(item) < 7 for item in latents.items[fold]) for fold in folds] == [1, 1, 1, 2, 2]
    assert [[item for item in ids[7:] if item in latents.items[fold]] for fold in folds] == [
        ids[start : start + 3] for start in range(7, 22, 3)
    ]


def test_fewer_items_than_folds_are_refused() -> None:
    with pytest.raises(FusemixError, match="5 folds, and there are only 4: choose another"):
        COCO_1K.galleries(shuffled_items(4)[0])
