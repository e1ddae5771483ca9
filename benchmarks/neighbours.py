"""The k nearest neighbours by cosine, tile by tile, whatever the order of the gallery.

Which of several equally near neighbours is among the first k is nobody's choice: those that tie for the last places
share them, so that a duplicate, a constant vector or the order of the rows decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix.errors import FusemixError

TIE = 1e-12
ELEMENTS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Neighbours:
    """The neighbours of some queries, one entry for each that is among the first k or shares a place there.

    Attributes:
        queries: (E,) place of the query.
        gallery: (E,) place of its neighbour.
        behind: (E,) float64 by how much its cosine is smaller than that of the nearest.
        share: (E,) float64 part of a place that the neighbour has; those of a query add up to k.
    """

    queries: Tensor
    gallery: Tensor
    behind: Tensor
    share: Tensor


def nearest_neighbours(
    queries: Tensor, gallery: Tensor, k: int, elements: int = ELEMENTS_AT_ONCE
) -> Iterator[Neighbours]:
    """Yield the k nearest rows of the gallery for some queries after the other.

    Cosines are float64 and tie where they differ by no more than 1e-12, so tile, order and device change nothing.

    Args:
        queries: (Q, d).
        gallery: (N, d) on the same device.
        k: how many places there are.
        elements: how many cosines are held at once.

    Raises:
        FusemixError: where the gallery has fewer than k rows.
    """
    if not 1 <= k <= len(gallery):
        raise FusemixError(f"{k} nearest neighbours of {len(gallery)} rows: k must be 1 to {len(gallery)}")
    columns = normalize(gallery.double(), dim=1).t()
    rows_at_once = max(1, elements // len(gallery))
    for start in range(0, len(queries), rows_at_once):
        rows = normalize(queries[start : start + rows_at_once].double(), dim=1)
        cosines = rows @ columns
        first = cosines.topk(k, dim=1).values
        last = first[:, -1:]
        above = cosines > last + TIE
        tied = (cosines >= last - TIE) & ~above
        left = (k - above.sum(dim=1, keepdim=True)).double() / tied.sum(dim=1, keepdim=True)
        query, neighbour = (above | tied).nonzero(as_tuple=True)
        share = torch.where(above[query, neighbour], 1.0, left[query, 0])
        yield Neighbours(query + start, neighbour, first[query, 0] - cosines[query, neighbour], share)
