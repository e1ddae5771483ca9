"""Multimodal latent mixup (FuseMix, arXiv 2312.10144, section 4.2): one lambda for all modalities of a pair."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fusemix.batch import LatentBatch


def mixup(batch: LatentBatch, partner: LatentBatch, lam: float | Tensor) -> LatentBatch:
    """Return lam * batch + (1 - lam) * partner, item by item, in every modality with the same lam.

    Because lam is shared, a mixed picture and a mixed text still describe each other.  An item has a modality
    only where both parents have it, and it keeps the content of both, so that a loss can tell that two mixed
    items share a parent.  The result keeps the positions of both, those of
    `batch` first.

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


def halves(batch: LatentBatch) -> tuple[LatentBatch, LatentBatch]:
    """Split 2B items into B and their B partners, as the FuseMix release does; an odd last item is dropped."""
    middle = len(batch) // 2

    def part(start: int) -> LatentBatch:
        chosen = slice(start, start + middle)
        return LatentBatch(
            {name: value[chosen] for name, value in batch.values.items()},
            {name: mask[chosen] for name, mask in batch.present.items()},
            batch.parents[chosen],
            {name: hashes[chosen] for name, hashes in batch.content.items()},
        )

    return part(0), part(middle)


def draw_lambda(alpha: float, seed: int) -> float:
    """Draw lambda ~ Beta(alpha, alpha), the weight that a batch's modalities share, from a seed of its own."""
    return float(np.random.default_rng(seed).beta(alpha, alpha))
