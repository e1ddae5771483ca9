"""How many answers of a row score above a positive, and how many as much.

Counting needs no sorting and no score matrix: each tile of scores is compared with a threshold per row, and the
comparisons are summed by a matrix-vector product.  In a good space few scores come near the positive's of their row,
so a tile is first asked for the groups of scores whose highest does.  A row may have several thresholds, one for each
of its positives; it is then counted once for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fusemix.retrieval.comparison import GROUP, Comparison
from fusemix.retrieval.tiles import SPARSE, Exact, Tile

GROUPS_AT_ONCE = 8192
"""So many groups that were picked from tiles are compared together: few enough to be in the cache."""

SCORES_LEFT_OPEN = 1 << 20
"""So many scores wait for float64 at most, a limit on the memory that they take."""

_Left = tuple[Tensor, Tensor, Tensor]
"""What is left to do: thresholds (n,), the first answer of each row of scores (n,), and these (n, w)."""


class Thresholds:
    """What the answers of some rows are compared with.

    Args:
        own: (V,) a row for each threshold, in increasing order.
        scores: (V,) float64; minus infinity for nothing to be counted.
        rows: how many rows this side has.
        comparison: gives the band.
    """

    def __init__(self, own: Tensor, scores: Tensor, rows: int, comparison: Comparison) -> None:
        self.own, self.scores, self.rows = own, scores, rows
        self.tile, self.tie = comparison.tile, comparison.tie
        threshold = torch.where(torch.isfinite(scores), scores, torch.inf)
        self.above, self.below = (threshold + comparison.band).float(), (threshold - comparison.band).float()
        first_rows = torch.arange(0, rows + self.tile, self.tile, device=own.device)
        self.bounds: list[int] = torch.searchsorted(own, first_rows).tolist()


@dataclass(frozen=True, slots=True)
class _Piece:
    """At most a tile of thresholds of one tile's rows, as views that are made once: slicing for each tile is slow.

    Attributes:
        places: (n,) which thresholds these are.
        rows: (n,) the row of each within the tile; None where each row has one.
        above: (n,) upper end of each band.
        below: (n,) lower end.
    """

    places: Tensor
    rows: Tensor | None
    above: Tensor
    below: Tensor


class Tally:
    """Counts of one direction.

    Attributes:
        better: (V,) answers that score higher than each threshold.
        tied: (V,) answers that score the same.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        # Counts in float32 would stop at 2**24.
        self.better, self.tied = (torch.zeros_like(thresholds.scores) for _ in range(2))
        self._pieces = [self._split(i, *bounds) for i, bounds in enumerate(pairwise(thresholds.bounds))]
        self._ones = torch.ones(max(thresholds.tile, GROUP), device=thresholds.own.device)
        self._held: list[_Left] = []
        self._groups_held = 0
        self._open: list[_Left] = []

    def _split(self, i: int, begin: int, end: int) -> list[_Piece]:
        of = self._thresholds
        all_rows = torch.arange(i * of.tile, min((i + 1) * of.tile, of.rows), device=of.own.device)
        one_each = torch.equal(of.own[begin:end], all_rows)
        pieces = []
        for start in range(begin, end, of.tile):
            part = slice(start, min(start + of.tile, end))
            places = torch.arange(part.start, part.stop, device=of.own.device)
            rows = None if one_each else of.own[part] - i * of.tile
            pieces.append(_Piece(places, rows, of.above[part], of.below[part]))
        return pieces

    def count(self, tile: Tile) -> None:
        """Count a tile, or hold its groups until they are worth it; what float32 cannot decide waits for `settle`."""
        for piece in self._pieces[tile.own]:
            highest = tile.highest if piece.rows is None else tile.highest[piece.rows]
            hot = (highest > piece.below[:, None]).nonzero()
            if 2 * len(hot) > highest.numel():
                self._count_all(tile, piece)
            elif len(hot):
                which, groups = hot.unbind(dim=1)
                scores = tile.of_groups(which if piece.rows is None else piece.rows[which], groups)
                first = groups * GROUP + tile.other * self._thresholds.tile
                self._held.append((piece.places.index_select(0, which), first, scores))
                self._groups_held += len(hot)
                if self._groups_held > GROUPS_AT_ONCE:
                    self._compare_held(tile.exact)

    def _count_all(self, tile: Tile, piece: _Piece) -> None:
        scores = tile.scores if piece.rows is None else tile.scores_of(piece.rows)
        in_bands = self._compare(piece.places, scores, tile.mask_for(scores))
        if int(in_bands.sum()) <= scores.numel() // SPARSE:
            near = in_bands.nonzero()[:, 0]
            first = torch.full_like(near, tile.other * self._thresholds.tile)
            self._leave((piece.places[near], first, scores[near]), tile.exact)
            return
        # Many near-ties, as a collapsed space has: one float64 GEMM decides them all.
        exact = tile.all_exact() if piece.rows is None else tile.all_exact()[piece.rows]
        difference = exact.sub_(self._thresholds.scores[piece.places, None])
        in_band = (scores > piece.below[:, None]) & (scores <= piece.above[:, None])
        self.better[piece.places] += ((difference > self._thresholds.tie) & in_band).sum(dim=1)
        self.tied[piece.places] += ((difference.abs_() <= self._thresholds.tie) & in_band).sum(dim=1)

    def _compare_held(self, exact: Exact) -> None:
        if not self._held:
            return
        places, first, scores = (torch.cat(column) for column in zip(*self._held, strict=True))
        self._held, self._groups_held = [], 0
        near = self._compare(places, scores, torch.empty_like(scores)).nonzero()[:, 0]
        self._leave((places[near], first[near], scores[near]), exact)

    def _leave(self, left: _Left, exact: Exact) -> None:
        if left[2].numel():
            self._open.append(left)
            if sum(scores.numel() for _, _, scores in self._open) > SCORES_LEFT_OPEN:
                self._decide(exact)

    def _compare(self, places: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
        """Compare scores (n, w) with n thresholds, and return how many of each are in its band, (n,)."""
        of, ones = self._thresholds, self._ones[: scores.shape[1]]
        above, below = of.above.index_select(0, places)[:, None], of.below.index_select(0, places)[:, None]
        sure = torch.mv(torch.gt(scores, above, out=mask), ones)
        self.better.index_add_(0, places, sure.double())
        return sure.addmv_(torch.gt(scores, below, out=mask), ones, beta=-1)

    def settle(self, exact: Exact) -> None:
        """Decide the entries in the bands of the tiles counted so far by their float64 scores."""
        self._compare_held(exact)
        self._decide(exact)

    def _decide(self, exact: Exact) -> None:
        of = self._thresholds
        for width in {scores.shape[1] for _, _, scores in self._open}:
            alike = [left for left in self._open if left[2].shape[1] == width]
            places, first, scores = (torch.cat(column) for column in zip(*alike, strict=True))
            entries = ((scores > of.below[places, None]) & (scores <= of.above[places, None])).nonzero()
            chosen, other = places[entries[:, 0]], first[entries[:, 0]] + entries[:, 1]
            difference = exact(of.own[chosen], other) - of.scores[chosen]
            self.better.index_add_(0, chosen, (difference > of.tie).double())
            self.tied.index_add_(0, chosen, (difference.abs() <= of.tie).double())
        self._open = []

    def totals(self) -> tuple[Tensor, Tensor]:
        """Return better and tied, (V,) int64."""
        return self.better.long(), self.tied.long()
