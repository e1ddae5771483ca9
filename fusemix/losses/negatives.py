"""Which entries of the score matrix are comparisons, and which are false negatives.

Rows are reordered so that the K pairs (items that have both modalities) come first on both sides, followed by the
rows without a partner, which serve as negatives only.  The positives then lie on the diagonal of the leading K x K
block, and the block of partnerless rows against partnerless columns is never computed.

Two rows of equal content (the same caption under two pictures) make their cross entries false negatives.  Equal
content is rare, so only the rows and columns that share any are looked at, and never more than a tile of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Order of the rows of u and v, and ids of shared content in that order.

    Attributes:
        pairs: K, the number of leading rows of both orders that are pairs.
        u_order: (N_u,) rows of u that are present, pairs first.
        v_order: (N_v,) rows of v that are present, pairs first.
        shared: for each of the two contents, the ids (N_u, P) and (N_v, P) of rows whose content some other row
            has as well, -1 elsewhere.
    """

    pairs: int
    u_order: Tensor
    v_order: Tensor
    shared: tuple[tuple[Tensor, Tensor], ...]

    def false_negatives(self, rows: slice, columns: slice) -> Tensor | None:
        """Return the (n, 2) entries of a tile that are false negatives, relative to the tile; None if none are.

        Args:
            rows: rows of the tile in the order of `u_order`.
            columns: columns of the tile in the order of `v_order`.
        """
        found = [
            entries
            for row_ids, column_ids in self.shared
            if len(entries := _equal_content(row_ids[rows], column_ids[columns])) > 0
        ]
        if not found:
            return None
        entries = torch.cat(found)
        return entries[entries[:, 0] + rows.start != entries[:, 1] + columns.start]


def lay_out(
    size: int,
    device: torch.device,
    present_u: Tensor | None,
    present_v: Tensor | None,
    content_u: Tensor | None,
    content_v: Tensor | None,
) -> Layout:
    """Arrange B items for the loss; arguments as in `info_nce`."""
    everything = torch.ones(size, dtype=torch.bool, device=device)
    has_u = everything if present_u is None else present_u
    has_v = everything if present_v is None else present_v
    pairs = (has_u & has_v).nonzero()[:, 0]
    u_order = torch.cat([pairs, (has_u & ~has_v).nonzero()[:, 0]])
    v_order = torch.cat([pairs, (has_v & ~has_u).nonzero()[:, 0]])
    shared = []
    # Content of u is known for every row of u, and for a row of v through its item where that item has u as well.
    for content, has in ((content_u, has_u), (content_v, has_v)):
        if content is None:
            continue
        ids = _shared_ids(content.reshape(size, -1), has)
        if ids is not None:
            shared.append((ids[u_order], ids[v_order]))
    return Layout(len(pairs), u_order, v_order, tuple(shared))


def _shared_ids(content: Tensor, has: Tensor) -> Tensor | None:
    """Return (B, P) ids of contents that several items have, -1 for the others and for absent rows."""
    _, ids = torch.unique(content, return_inverse=True)
    ids = torch.where(has[:, None], ids, -1)
    # Parents of one mixed item may be equal; such an item still counts once.
    once = ids.sort(dim=1).values
    once[:, 1:] = torch.where(once[:, 1:] == once[:, :-1], -1, once[:, 1:])
    present = once[once >= 0]
    counts = torch.bincount(present, minlength=int(ids.max()) + 2)
    ids = torch.where((ids >= 0) & (counts[ids] > 1), ids, -1)
    return ids if bool((ids >= 0).any()) else None


def _equal_content(row_ids: Tensor, column_ids: Tensor) -> Tensor:
    """Return the (n, 2) entries whose row and column share an id, each once, by a sorted join of the two."""
    parents, columns = column_ids.shape[1], len(column_ids)
    ids, order = column_ids.reshape(-1).sort()
    wanted = row_ids.reshape(-1)
    first, end = torch.searchsorted(ids, wanted), torch.searchsorted(ids, wanted, right=True)
    counts = torch.where(wanted >= 0, end - first, 0)
    which = torch.repeat_interleave(counts)
    among = torch.arange(len(which), device=ids.device) - (counts.cumsum(0) - counts)[which]
    entries = (which // parents) * columns + order[first[which] + among] // parents
    # Two mixed items may share both parents.
    unique = torch.unique(entries)
    return torch.stack([unique // columns, unique % columns], dim=1)
