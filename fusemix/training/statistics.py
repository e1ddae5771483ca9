"""Mean and standard deviation of each dimension of the training latents, over all datasets together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusemix.errors import FusemixError
from fusemix.latents.paired import ModalityLatents

ELEMENTS_AT_ONCE = 1 << 22


def standardisation(parts: Sequence[ModalityLatents]) -> tuple[Tensor, Tensor]:
    """Return (D,) float32 mean and (biased) standard deviation over one modality's rows, accumulated in float64.

    Every row is read once, in the order of the file, and a bounded number at a time: statistics of chunks are merged
    as in Chan, Golub and LeVeque (1979), which loses no digits where a mean is far from zero.

    Args:
        parts: the modality's latents in one dataset or several, all of one dimension.

    Raises:
        FusemixError: where there is no row.
    """
    count, mean, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for part in (part for part in parts if len(part.rows)):
        for _, values in part.in_chunks(ELEMENTS_AT_ONCE):
            chunk = values.double()
            chunk_mean = chunk.mean(0)
            gap, total = chunk_mean - mean, count + len(chunk)
            squares = squares + (chunk - chunk_mean).square_().sum(0) + gap.square() * (count * len(chunk) / total)
            mean, count = mean + gap * (len(chunk) / total), total
    if count == 0:
        raise FusemixError("the training split has no row of one modality: extract it, or leave the modality out")
    return mean.float(), (squares / count).sqrt().float()
