"""Parts of the training items, drawn so that a smaller part lies in a larger one."""

from __future__ import annotations

import numpy as np
import torch

from fusemix.errors import FusemixError
from fusemix.latents.paired import PairedLatents
from fusemix.randomness import derive_seed

LEAST_PAIRS = 4


def with_fraction(latents: PairedLatents, fraction: float, seed: int) -> PairedLatents:
    """Keep a fraction of the training items and all others.

    Items are taken in the order of a hash of seed and id, so that it depends on no other item.
    """
    if fraction == 1:
        return latents
    training = np.flatnonzero(latents.splits == "train")
    ordered = sorted(training, key=lambda position: derive_seed(seed, "fraction", str(latents.items[position])))
    count = max(round(fraction * len(training)), 1)
    kept = np.concatenate([ordered[:count], np.flatnonzero(latents.splits != "train")])
    return latents.at(torch.from_numpy(np.sort(kept.astype(np.int64))))


def pairs_of(latents: PairedLatents, a: str, b: str) -> int:
    """Return the number of training items that have both modalities."""
    train = latents.split("train")
    return int(((train[a].counts > 0) & (train[b].counts > 0)).sum())


def check_fraction(latents: PairedLatents, fraction: float, seed: int, a: str, b: str) -> None:
    """Refuse a fraction that leaves too few pairs to align anything.

    Raises:
        FusemixError: saying how many are left.
    """
    pairs = pairs_of(with_fraction(latents, fraction, seed), a, b)
    if pairs < LEAST_PAIRS:
        raise FusemixError(
            f"--fractions {fraction}: it leaves {pairs} of {pairs_of(latents, a, b)} training items with both {a} and"
            f" {b}, and at least {LEAST_PAIRS} are needed"
        )
