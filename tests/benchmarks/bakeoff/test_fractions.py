from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from fusemix.benchmarks.bakeoff.fractions import check_fraction, pairs_of, with_fraction
from fusemix.errors import FusemixError

from .baked import WORLD


def training(fraction: float, seed: int) -> set[str]:
    part = with_fraction(WORLD, fraction, seed)
    return set(part.items[part.splits == "train"])


def test_a_smaller_fraction_lies_in_a_larger_one() -> None:
    parts = [training(fraction, 0) for fraction in (0.1, 0.3, 0.55, 1.0)]
    assert [len(part) for part in parts] == [4, 12, 22, 40]
    for smaller, larger in pairwise(parts):
        assert smaller < larger


def test_another_seed_draws_other_items_and_the_same_seed_the_same() -> None:
    assert training(0.3, 0) == training(0.3, 0) != training(0.3, 1)
    assert training(1.0, 0) == training(1.0, 1)


def test_items_of_other_splits_stay() -> None:
    part = with_fraction(WORLD, 0.1, 0)
    for split in ("val", "test"):
        assert set(part.items[part.splits == split]) == set(WORLD.items[WORLD.splits == split])


def test_an_item_is_drawn_whatever_else_there_is() -> None:
    # An item that was not drawn is taken away.
    fewer = WORLD.at(torch.from_numpy(np.flatnonzero(WORLD.items != sorted(training(1.0, 0) - training(0.5, 0))[0])))
    drawn = with_fraction(fewer, 20 / 39, 0)
    assert set(drawn.items[drawn.splits == "train"]) == training(0.5, 0)


def test_pairs_are_items_with_both_modalities() -> None:
    train = WORLD.split("train")
    both = [bool(i) and bool(t) for i, t in zip(train["image"].counts, train["text"].counts, strict=True)]
    assert pairs_of(WORLD, "image", "text") == sum(both) < len(train)


def test_a_fraction_with_too_few_pairs_is_refused() -> None:
    check_fraction(WORLD, 0.5, 0, "image", "text")
    with pytest.raises(
        FusemixError, match=r"--fractions 0\.05: it leaves [012] of 3\d training items with both image"
    ):
        check_fraction(WORLD, 0.05, 0, "image", "text")
