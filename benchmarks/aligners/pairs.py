"""What closed-form aligners learn from: the training items that have both modalities, each with its mean latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix.errors import FusemixError
from fusemix.latents.paired import PairedLatents
from fusemix.training.statistics import standardisation

from .linear_maps import linear_adapter


@dataclass(frozen=True)
class Side:
    """One modality of the training pairs.

    Attributes:
        values: (P, D) float32 mean latent of each pair's item.
        mean: (D,) float32 mean over all rows of the items, those of items without a partner too.
        std: (D,) float32 standard deviation over the same rows.
    """

    values: Tensor
    mean: Tensor
    std: Tensor

    @property
    def centred(self) -> Tensor:
        """The values minus the mean, (P, D) float64."""
        return (self.values - self.mean).double()

    @property
    def standardised(self) -> Tensor:
        """The values as an adapter standardises them, (P, D) float64: what never varies is only centred."""
        adapter = linear_adapter(torch.zeros(1, len(self.mean)), self.mean, self.std)
        return ((self.values - self.mean) * adapter.inverse_std).double()


def training_pairs(train: PairedLatents, a: str, b: str) -> tuple[Side, Side]:
    """Return both sides of those of the items to learn from that have both modalities, in their order.

    An item with several rows counts once, with their mean.

    Raises:
        FusemixError: where no training item has both.
    """
    both = (train[a].counts > 0) & (train[b].counts > 0)
    if not bool(both.any()):
        raise FusemixError(f"no item of the training split has both {a} and {b}: nothing to align")
    first, second = (Side(_item_means(train, name)[both], *standardisation([train[name]])) for name in (a, b))
    return first, second


def _item_means(latents: PairedLatents, modality: str) -> Tensor:
    """Return the mean latent of each item, (I, D) float32; zeros where it has none."""
    rows = latents[modality]
    sums = torch.zeros(len(latents), rows.values.shape[1]).index_add_(
        0, rows.item_of_row, rows.values[rows.rows].float()
    )
    return sums / rows.counts.clamp_min(1)[:, None]
