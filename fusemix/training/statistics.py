"""Mean and standard deviation of each dimension of the training latents."""

from __future__ import annotations

import torch
from torch import Tensor

from fusemix.errors import FusemixError
from fusemix.latents.paired import ModalityLatents

ROWS_AT_ONCE = 65536


def standardisation(modality: ModalityLatents) -> tuple[Tensor, Tensor]:
    """Return (D,) float32 mean and (biased) standard deviation over the modality's rows, accumulated in float64.

    Raises:
        FusemixError: where there is no row.
    """
    if len(modality.rows) == 0:
        raise FusemixError("the training split has no row of one modality: extract it, or leave the modality out")
    chunks = modality.rows.split(ROWS_AT_ONCE)
    count = len(modality.rows)
    mean = torch.stack([modality.values[rows].double().sum(0) for rows in chunks]).sum(0) / count
    squares = torch.stack([(modality.values[rows].double() - mean).square().sum(0) for rows in chunks])
    return mean.float(), (squares.sum(0) / count).sqrt().float()
