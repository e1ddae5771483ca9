"""The generic retrieval protocol: all rows of two modalities of a split, pooled.

Every row is a query in its own direction and a gallery row in the other.  A row's positives are the rows of its
item, and every row of equal content to one of these: a caption that describes three pictures is right for each of
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from fusemix.errors import FusemixError
from fusemix.latents.paired import ModalityLatents, PairedLatents


@dataclass(frozen=True)
class RetrievalPool:
    """Rows of modality a and b, which pairs of them belong together, and the item of each row.

    Attributes:
        a: name of the first modality.
        b: name of the second.
        rows_a: (Q,) rows of a's latents.
        rows_b: (N,) rows of b's latents.
        items_a: (Q,) position of each row's item.
        items_b: (N,) position of each row's item.
        positives: (P, 2) int64 pairs into `rows_a` and `rows_b`.
    """

    a: str
    b: str
    rows_a: Tensor
    rows_b: Tensor
    items_a: Tensor
    items_b: Tensor
    positives: Tensor


def pool_rows(latents: PairedLatents, a: str, b: str) -> RetrievalPool:
    """Pool the rows of two modalities.

    Raises:
        FusemixError: where no item has both modalities.
    """
    first, second = latents[a], latents[b]
    items_a, items_b = first.item_of_row, second.item_of_row
    rows_of_a, rows_of_b = _rows_by_content(first), _rows_by_content(second)
    pairs: set[tuple[int, int]] = set()
    for item in np.flatnonzero(((first.counts > 0) & (second.counts > 0)).numpy()):
        own_a = range(int(first.offsets[item]), int(first.offsets[item + 1]))
        own_b = range(int(second.offsets[item]), int(second.offsets[item + 1]))
        all_a = [row for own in own_a for row in rows_of_a[int(first.content[first.rows[own]])]]
        all_b = [row for own in own_b for row in rows_of_b[int(second.content[second.rows[own]])]]
        pairs.update(product(all_a, all_b))
    if not pairs:
        raise FusemixError(f"no item of these {len(latents)} has both {a} and {b}: nothing to retrieve")
    positives = torch.tensor(sorted(pairs), dtype=torch.int64)
    return RetrievalPool(a, b, first.rows, second.rows, items_a, items_b, positives)


def _rows_by_content(modality: ModalityLatents) -> dict[int, list[int]]:
    places: dict[int, list[int]] = {}
    for place, content in enumerate(modality.content[modality.rows].tolist()):
        places.setdefault(content, []).append(place)
    return places
