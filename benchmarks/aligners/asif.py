"""ASIF: relative representations to training pairs, without training (arXiv 2210.01738)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from fusemix.adapters.relative import RelativeAdapter
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.randomness import generator

from .linear_maps import best_of
from .pairs import Side, training_pairs

NEIGHBOURS_AND_POWERS = ((800, 8.0), (800, 4.0), (100, 8.0), (100, 4.0))
MOST_ANCHORS = 10_000


def asif(
    latents: PairedLatents,
    a: str,
    b: str,
    neighbours_and_powers: Sequence[tuple[int, float]] = NEIGHBOURS_AND_POWERS,
    *,
    most_anchors: int = MOST_ANCHORS,
) -> JointSpace:
    """Describe latents of each modality by their cosines to the training pairs of that modality.

    Latents are centred by the training split, which the paper does not do: without it all cosines are alike where an
    encoder's latents share an offset.  An item with several rows is one anchor, their mean.

    Args:
        latents: items with the splits `train` and `val`.
        a: one modality.
        b: the other.
        neighbours_and_powers: how many anchors count, and the exponent of their cosines (the paper's k and p, 800 and
            8 with 1.6M pairs), to choose from by the mean reciprocal rank on the validation split.
        most_anchors: of more pairs, so many are drawn, always the same ones; an embedding has as many numbers.

    Raises:
        FusemixError: where no training item has both modalities.
    """
    sides = dict(zip((a, b), training_pairs(latents.split("train"), a, b), strict=True))
    count = len(sides[a].values)
    drawn = torch.randperm(count, generator=generator("anchors", count))[:most_anchors].sort().values

    def adapter(side: Side, neighbours: int, power: float) -> RelativeAdapter:
        made = RelativeAdapter(len(side.mean), len(drawn), neighbours, power)
        made.standardise_by(side.mean, torch.ones_like(side.std))
        made.compare_with(side.values[drawn])
        return made

    def attempt(neighbours: int, power: float) -> JointSpace:
        adapters = {name: adapter(side, neighbours, power) for name, side in sides.items()}
        return JointSpace(adapters, specs={name: latents[name].spec for name in (a, b)}).eval()

    return best_of([partial(attempt, *pair) for pair in neighbours_and_powers], latents, a, b)[1]
