"""Feeds training: which items each step sees, mixed and on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix.batch import BatchSource, LatentBatch, one_pair_a_row
from fusemix.errors import FusemixError
from fusemix.latents.paired import PairedLatents
from fusemix.mixing import draw_lambda, halves, mixup
from fusemix.randomness import derive_seed
from fusemix.training.settings import FuseSettings


@dataclass(frozen=True)
class Feed:
    """One step's input, on the device.

    Attributes:
        batch: B pairs, mixed already; its parents are positions that `Feeder.item_ids` names.
        lam: the lambda, the mean of them where each pair has its own; 1 without mixup.
    """

    batch: LatentBatch
    lam: float


class Feeder:
    """Makes the input of any step, from (seed, step) alone.

    Args:
        train: the items to train on, of one dataset or of several.
        settings: batch size, mixup, captions, weights of datasets, residency, seed.
        device: where training runs.

    Raises:
        FusemixError: where there are fewer items than a step takes.
    """

    def __init__(self, train: Sequence[PairedLatents], settings: FuseSettings, device: torch.device) -> None:
        if len(train) > 1:
            raise FusemixError("several datasets are not built yet")
        self.settings, self.device = settings, device
        self._latents = one_pair_a_row(train[0]) if settings.captions == "all" else train[0]
        items_per_step = settings.batch_size * (2 if settings.mixup == "halves" else 1)
        self._source = BatchSource(self._latents, items_per_step, settings.seed)

    def __str__(self) -> str:
        return f"{self._latents.dataset.name}: {len(self._latents)} items, {self._source.items_per_step} a step"

    def steps(self, start: int, stop: int) -> Iterator[Feed]:
        """Yield the input of steps `start` to `stop` - 1."""
        for step in range(start, stop):
            batch = self._source.batch(step).to(self.device)
            if self.settings.mixup == "none":
                yield Feed(batch, 1.0)
                continue
            lam = draw_lambda(self.settings.mixup_alpha, derive_seed(self.settings.seed, "lambda", step))
            yield Feed(mixup(*halves(batch), lam), lam)

    def item_ids(self, items: Tensor) -> list[str]:
        """Return the ids of items, for messages; where there are several datasets, with the dataset's name.

        Args:
            items: positions, as in a batch's `parents`.
        """
        return [str(self._latents.items[position]) for position in items.tolist()]
