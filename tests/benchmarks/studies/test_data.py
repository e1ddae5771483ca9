from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from fusemix.benchmarks.studies.data import load_data, with_share
from fusemix.benchmarks.studies.design import Data
from fusemix.benchmarks.synthetic import synthetic_latents
from fusemix.errors import FusemixError
from fusemix.extract.extraction import latents_path
from fusemix.extract.registry import encoder_label
from fusemix.extract.settings import EncoderChoice
from fusemix.latents.file import LatentsFile
from fusemix.latents.paired import PairedLatents
from tests.benchmarks.small_world import small_world
from tests.fusemix.synthetic import encoder

from .small_study import WORLD


@pytest.fixture(scope="module")
def latents() -> PairedLatents:
    return synthetic_latents(WORLD)


def items(latents: PairedLatents, split: str) -> list[str]:
    return list(latents.split(split).items)


def test_a_smaller_share_lies_in_a_larger_one(latents: PairedLatents) -> None:
    shares = [items(with_share(latents, share), "train") for share in (0.1, 0.25, 0.5, 0.9, 1.0)]
    assert [len(share) for share in shares] == [12, 30, 60, 108, 120]
    for smaller, larger in pairwise(shares):
        assert set(smaller) < set(larger)
    assert shares[-1] == items(latents, "train")


def test_a_share_is_drawn_from_all_training_items_and_leaves_the_other_splits(latents: PairedLatents) -> None:
    share = with_share(latents, 0.25)
    for split in ("val", "test"):
        assert items(share, split) == items(latents, split)
    places = np.searchsorted(latents.items.astype(str), np.array(items(share, "train"), str))
    # Not the first ones: their mean place is near the middle.
    assert abs(places.mean() - (70 + 60)) < 25
    assert share["first"].values is latents["first"].values


def test_a_share_follows_from_the_ids_whatever_the_other_items_are() -> None:
    whole = small_world()
    kept = set(items(with_share(whole, 0.5), "train"))
    some = set(items(whole, "train")[::2])
    part = whole.at(positions(whole, some))
    # Half of the half: those of it that come first in the same order.
    again = items(with_share(part, len(kept & some) / len(some)), "train")
    assert set(again) == kept & some


def positions(latents: PairedLatents, training: set[str]) -> torch.Tensor:
    keep = [split != "train" or item in training for item, split in zip(latents.items, latents.splits, strict=True)]
    return torch.from_numpy(np.flatnonzero(keep))


def test_latents_that_were_not_extracted_are_missed(tmp_path: Path) -> None:
    with pytest.raises(FusemixError, match="fusemix extract"):
        load_data(Data("emoji"), tmp_path)


def test_pictures_are_seen_at_the_sides_of_the_study_whatever_the_recipe_says(tmp_path: Path) -> None:
    def write(modality: str, choice: EncoderChoice, dim: int, value: float) -> None:
        path = latents_path(tmp_path, "emoji", modality, encoder_label(choice))
        path.parent.mkdir(parents=True, exist_ok=True)
        LatentsFile.from_arrays(
            path, ["a", "b"], np.full((2, dim), value), encoder(modality, dim), sources=["x", "y"]
        )

    write("text", EncoderChoice("minilm-l6-v2"), 2, 0)
    write("image", EncoderChoice("efficientnet-lite0"), 2, 224)
    write("image", EncoderChoice("efficientnet-lite0", {"side": 128}), 1, 128)
    for sides, expected in (((224,), [224, 224]), ((128, 224), [128, 224, 224])):
        latents = load_data(Data("emoji", sides=sides), tmp_path)
        assert latents["image"].values[0].tolist() == expected


def test_a_world_needs_no_files(tmp_path: Path) -> None:
    assert len(load_data(Data(WORLD), tmp_path)) == WORLD.items
    assert len(load_data(Data(WORLD, 0.5), tmp_path)) == WORLD.items - 60
