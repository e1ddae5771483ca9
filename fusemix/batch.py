"""Batches of latents: which items a step sees, which of their rows, and the tensors that come of it.

Items of a batch are distinct and one row of each is drawn, so two captions of one picture are never each other's
negatives; `one_pair_a_row` gives that up for FuseMix's flattened pairs.  One permutation of all items per epoch gives
the order; an epoch's tail that does not fill a step is dropped.  Everything follows from (seed, step): any step's
items can be drawn without those before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fusemix.latents.paired import ModalityLatents, PairedLatents
from fusemix.randomness import generator

ABSENT = -1


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
            {name: value.to(device) for name, value in self.values.items()},
            {name: mask.to(device) for name, mask in self.present.items()},
            self.parents.to(device),
            {name: hashes.to(device) for name, hashes in self.content.items()},
        )


@dataclass(frozen=True)
class DrawnItems:
    """What a step sees of one dataset.

    Attributes:
        items: (N,) int64 positions of the items.
        rows: modality -> (N,) int64 row of `ModalityLatents.values` that was drawn, ABSENT where there is none.
    """

    items: Tensor
    rows: Mapping[str, Tensor]


class ItemSource:
    """Draws the items of any step, and a row of each.

    Args:
        latents: the items to train on, at least as many as a step takes.
        items_per_step: how many distinct items a step sees.
        seed: with the step, decides order and rows.
    """

    def __init__(self, latents: PairedLatents, items_per_step: int, seed: int) -> None:
        self.latents, self.items_per_step, self.seed = latents, items_per_step, seed
        self.steps_per_epoch = len(latents) // items_per_step
        self._order = (-1, torch.empty(0, dtype=torch.int64))

    def draw(self, step: int) -> DrawnItems:
        """Return the items of a step, counted from 0."""
        epoch, index = divmod(step, self.steps_per_epoch)
        drawn_for, order = self._order
        if epoch != drawn_for:
            order = torch.randperm(len(self.latents), generator=generator(self.seed, "order", epoch))
            self._order = (epoch, order)
        chosen = order[index * self.items_per_step : (index + 1) * self.items_per_step]
        return DrawnItems(chosen, draw_rows(self.latents, chosen, generator(self.seed, "rows", step)))


def draw_rows(latents: PairedLatents, positions: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
    """Draw one row of each item in each modality.

    Args:
        latents: the items.
        positions: (N,) positions of the items.
        rng: draws among the rows of an item; modalities are drawn one by one in the order of their names.

    Returns:
        modality -> (N,) int64 rows of its `values`, ABSENT where an item has none.
    """
    drawn = {}
    for name, modality in sorted(latents.modalities.items()):
        # Drawn even where there is nothing to choose, so that no modality's rows depend on how many another has.
        draws = torch.rand(len(positions), generator=rng)
        if modality.one_each:
            drawn[name] = modality.rows.index_select(0, positions)
            continue
        starts = modality.offsets[positions]
        counts = modality.offsets[positions + 1] - starts
        within = (draws * counts).long()
        # In float32 a draw next to 1 times a large count is the count itself.
        places = starts + torch.minimum(within, counts - 1)
        drawn[name] = looked_up(modality.rows, torch.where(counts > 0, places, ABSENT), ABSENT)
    return drawn


def looked_up(values: Tensor, places: Tensor, otherwise: int) -> Tensor:
    """Return `values` at places, (N,) int64, and `otherwise` where a place is ABSENT."""
    absent = places == ABSENT
    if not absent.any():
        return values.index_select(0, places)
    if not len(values):
        return torch.full_like(places, otherwise)
    # Faster than to pick those that are there: the last value is read in vain for the others.
    return torch.where(absent, otherwise, values[places])


def pair_counts(latents: PairedLatents) -> Tensor:
    """Return how many pairs each item makes, (I,) int64: the rows of its modality with the most."""
    return torch.stack([modality.counts for modality in latents.modalities.values()]).amax(dim=0)


def one_pair_a_row(latents: PairedLatents) -> PairedLatents:
    """Return latents in which every row is a pair of its own: a picture with five captions becomes five pairs.

    An item becomes as many pairs as its modality with the most rows has; the rows of each other modality are taken in
    turn, so that one picture stands beside each caption.  Latents are shared, not copied; an id stands once a pair.
    """
    pairs = pair_counts(latents)
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
