"""Multimodal latent mixup (FuseMix, arXiv 2312.10144, section 4.2): one lambda for all modalities of a pair.

Who is mixed with whom is decided within a presence pattern, the set of modalities that an item has.  A mixed item has
a modality only where both parents have it, so partners drawn from all items would leave p^2 of a modality that a
share p of the items has.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fusemix.batch import LatentBatch


def mixup(batch: LatentBatch, partner: LatentBatch, lam: float | Tensor) -> LatentBatch:
    """Return lam * batch + (1 - lam) * partner, item by item, in every modality with the same lam.

    Because lam is shared, a mixed picture and a mixed text still describe each other.  An item has a modality
    only where both parents have it, and it keeps the content of both, so that a loss can tell that two mixed
    items share a parent.  The result keeps the positions of both, those of `batch` first.

    Args:
        batch: B items.
        partner: B items of the same modalities.
        lam: one number in [0, 1], or (B,) numbers.

    Raises:
        ValueError: where the batches differ in size or modalities.
    """
    if len(batch) != len(partner) or batch.values.keys() != partner.values.keys():
        raise ValueError(
            f"cannot mix {len(batch)} items of {sorted(batch.values)} with {len(partner)} items of"
            f" {sorted(partner.values)}"
        )
    weight = torch.as_tensor(lam, dtype=torch.float32, device=batch.parents.device)
    column = weight.expand(len(batch))[:, None]
    present = {name: mask & partner.present[name] for name, mask in batch.present.items()}
    values = {
        name: torch.lerp(partner.values[name], value, column) * present[name][:, None]
        for name, value in batch.values.items()
    }
    content = {name: torch.cat([c, partner.content[name]], dim=1) for name, c in batch.content.items()}
    return LatentBatch(values, present, torch.cat([batch.parents, partner.parents], dim=1), content)


def partners_of_halves(patterns: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pair 2B items as the FuseMix release does: those of the first half with those of the second.

    Each presence pattern has its own halves.  An odd pattern leaves one item over; half of these, drawn by `rng`,
    enter unmixed (mixed with themselves) and the others sit out, so that there are always B pairs.

    Args:
        patterns: (2B,) int64, equal for items with the same modalities.
        rng: draws which of the items left over enter.

    Returns:
        (B,) places of the items, increasing within a pattern, and (B,) places of their partners.
    """
    groups = _by_pattern(patterns)
    left_over = torch.cat([group[len(group) // 2 * 2 :] for group in groups])
    entering = left_over[torch.randperm(len(left_over), generator=rng)[: len(left_over) // 2]]
    return (
        torch.cat([*(group[: len(group) // 2] for group in groups), entering]),
        torch.cat([*(group[len(group) // 2 : len(group) // 2 * 2] for group in groups), entering]),
    )


def partners_by_shift(patterns: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pair each of B items with another: each presence pattern of n items is shifted cyclically by 1 to n - 1 places.

    The only item of its pattern is paired with itself.  Every item is a parent twice: see `LatentBatch.parents`.

    Args:
        patterns: (B,) int64, equal for items with the same modalities.
        rng: draws the length of each shift.

    Returns:
        (B,) places of the items, increasing within a pattern, and (B,) places of their partners.
    """
    groups = _by_pattern(patterns)
    draws = torch.rand(len(patterns), generator=rng, dtype=torch.float64)
    shifted, start = [], 0
    for group in groups:
        others = len(group) - 1
        shifted.append(group.roll(-min(1 + int(draws[start] * others), others)))
        start += len(group)
    return torch.cat(groups), torch.cat(shifted)


def _by_pattern(patterns: Tensor) -> list[Tensor]:
    """Return the places of the items of each pattern, increasing."""
    if len(patterns) and bool((patterns == patterns[0]).all()):
        # What most steps see: sorting would take as long as drawing the items.
        return [torch.arange(len(patterns))]
    return [(patterns == pattern).nonzero()[:, 0] for pattern in patterns.unique()] or [torch.arange(0)]


def draw_lambda(alpha: float, seed: int) -> float:
    """Draw lambda ~ Beta(alpha, alpha), the weight that a batch's modalities share, from a seed of its own."""
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def draw_lambdas(alpha: float, seed: int, pairs: int) -> Tensor:
    """Draw a lambda ~ Beta(alpha, alpha) for each of `pairs` pairs, (pairs,) float32, from a seed of their own."""
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, pairs)).float()
