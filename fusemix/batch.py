"""Batches of latents: which items a step sees, which of their rows, and the tensors that come of it.

Items of a batch are distinct and one row of each is drawn, so two captions of one picture are never each other's
negatives; `one_pair_a_row` gives that up for FuseMix's flattened pairs.  One permutation of all items per epoch gives
the order; an epoch's tail that does not fill a batch is dropped.  Everything follows from (seed, step): any step's
batch can be made without those before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fusemix.errors import FusemixError
from fusemix.latents.paired import ModalityLatents, PairedLatents
from fusemix.randomness import generator


@dataclass(frozen=True)
class LatentBatch:
    """Latents of B items, one row of each in each modality.

    Attributes:
        values: modality -> (B, D_m) float32; zeros where the item lacks the modality.
        present: modality -> (B,) bool.
        parents: (B, P) int64 positions of the items behind each latent; P is 1, or 2 after mixup.
        content: modality -> (B, P) int64 hashes of the raw inputs behind each latent.
    """

    values: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    parents: Tensor
    content: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.parents)

    @property
    def items(self) -> Tensor:
        """(B,) positions of the items, after mixup of the first parents."""
        return self.parents[:, 0]

    def to(self, device: torch.device) -> LatentBatch:
        """Return the batch on a device."""
        return LatentBatch(
            {name: value.to(device, non_blocking=True) for name, value in self.values.items()},
            {name: mask.to(device, non_blocking=True) for name, mask in self.present.items()},
            self.parents.to(device, non_blocking=True),
            {name: hashes.to(device, non_blocking=True) for name, hashes in self.content.items()},
        )


class BatchSource:
    """Makes the batch of any step.

    Args:
        latents: the items to train on.
        items_per_step: how many distinct items a step sees.
        seed: with the step, decides order and rows.

    Raises:
        FusemixError: where there are fewer items than a step needs.
    """

    def __init__(self, latents: PairedLatents, items_per_step: int, seed: int) -> None:
        if len(latents) < items_per_step:
            raise FusemixError(
                f"{len(latents)} items to train on, but a step takes {items_per_step} (twice fuse.batch_size with"
                f" mixup): set fuse.batch_size to at most {len(latents) // 2} with mixup, {len(latents)} without"
            )
        self.latents, self.items_per_step, self.seed = latents, items_per_step, seed
        self.steps_per_epoch = len(latents) // items_per_step
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def batch(self, step: int) -> LatentBatch:
        """Return the batch of a step, counted from 0."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = torch.randperm(len(self.latents), generator=generator(self.seed, "order", epoch))
            self._epoch = epoch
        chosen = self._order[index * self.items_per_step : (index + 1) * self.items_per_step]
        return gather(self.latents, chosen, generator(self.seed, "rows", step))


def one_pair_a_row(latents: PairedLatents) -> PairedLatents:
    """Return latents in which every row is a pair of its own: a picture with five captions becomes five pairs.

    An item becomes as many pairs as its modality with the most rows has; the rows of each other modality are taken in
    turn, so that one picture stands beside each caption.  Latents are shared, not copied; an id stands once a pair.
    """
    counts = torch.stack([modality.counts for modality in latents.modalities.values()])
    pairs = counts.amax(dim=0)
    item = torch.repeat_interleave(torch.arange(len(latents)), pairs)
    number = torch.arange(len(item)) - (pairs.cumsum(0) - pairs)[item]

    def flat(modality: ModalityLatents) -> ModalityLatents:
        rows = modality.counts[item]
        has = rows > 0
        chosen = modality.rows[(modality.offsets[item] + number % rows.clamp_min(1))[has]]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), has.cumsum(0)])
        return replace(modality, rows=chosen, offsets=offsets)

    return PairedLatents(
        latents.items[item],
        latents.splits[item],
        {name: flat(modality) for name, modality in latents.modalities.items()},
        latents.dataset,
    )


def gather(latents: PairedLatents, positions: Tensor, rng: torch.Generator) -> LatentBatch:
    """Read one random row of each item in each modality.

    Args:
        latents: the items.
        positions: (B,) positions of the items.
        rng: draws among the rows of an item; modalities are drawn one by one in the order of their names.
    """
    values, present, content = {}, {}, {}
    for name in sorted(latents.modalities):
        modality = latents.modalities[name]
        draws = torch.rand(len(positions), generator=rng)
        values[name], present[name], content[name] = _rows_of(modality, positions, draws)
    return LatentBatch(values, present, positions[:, None], content)


def _rows_of(modality: ModalityLatents, positions: Tensor, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    counts = modality.counts[positions]
    present = counts > 0
    within = torch.minimum((draws * counts).long(), (counts - 1).clamp_min(0))
    places = (modality.offsets[positions] + within).clamp_max(max(len(modality.rows) - 1, 0))
    rows = modality.rows[places]
    values = modality.values.index_select(0, rows).float()
    if not present.all():
        values[~present] = 0
    return values, present, modality.content[rows][:, None]
