"""How many answers of a row score above a positive, and how many as much.

Counting needs no sorting and no score matrix: each tile of scores is compared with a threshold per row, and the
comparisons are summed by a matrix-vector product.  A row may have several thresholds, one for each of its positives;
it is then counted once for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fusemix.retrieval.comparison import Comparison
from fusemix.retrieval.tiles import Exact, Tile

SPARSE = 32


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
        better: (n,) view of the tally's.
        above: (n,) upper end of each band.
        below: (n,) lower end.
    """

    places: Tensor
    rows: Tensor | None
    better: Tensor
    above: Tensor
    below: Tensor


class Tally:
    """Counts of one direction over the tiles of one worker.

    Attributes:
        better: (V,) answers that score higher than each threshold.
        tied: (V,) answers that score the same.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        # Counts in float32 would stop at 2**24.
        self.better, self.tied = (torch.zeros_like(thresholds.scores) for _ in range(2))
        self._pieces = [self._split(i, *bounds) for i, bounds in enumerate(pairwise(thresholds.bounds))]
        self._open: list[tuple[Tensor, Tensor, Tensor]] = []

    def _split(self, i: int, begin: int, end: int) -> list[_Piece]:
        of = self._thresholds
        all_rows = torch.arange(i * of.tile, min((i + 1) * of.tile, of.rows), device=of.own.device)
        one_each = torch.equal(of.own[begin:end], all_rows)
        pieces = []
        for start in range(begin, end, of.tile):
            part = slice(start, min(start + of.tile, end))
            places = torch.arange(part.start, part.stop, device=of.own.device)
            rows = None if one_each else of.own[part] - i * of.tile
            pieces.append(_Piece(places, rows, self.better[part], of.above[part], of.below[part]))
        return pieces

    def count(self, tile: Tile) -> None:
        """Count a tile; entries in the band wait to be settled, or are settled at once where they are many."""
        for piece in self._pieces[tile.own]:
            highest = tile.highest if piece.rows is None else tile.highest[piece.rows]
            # In a good space few rows have a score in the tile that comes near their positive's.
            hot = (highest > piece.below).nonzero()[:, 0]
            if 2 * len(hot) > len(highest):
                self._compare(tile, piece, slice(None), piece.rows)
            elif len(hot):
                self._compare(tile, piece, hot, hot if piece.rows is None else piece.rows[hot])

    def _compare(self, tile: Tile, piece: _Piece, some: Tensor | slice, rows: Tensor | None) -> None:
        """Compare with some of a piece's thresholds; `rows` are theirs, None for all of the tile's."""
        scores = tile.scores if rows is None else tile.scores_of(rows)
        mask = tile.mask_for(scores)
        above, below = piece.above[some, None], piece.below[some, None]
        sure = torch.mv(torch.gt(scores, above, out=mask), tile.ones)
        piece.better[some] += sure
        near = sure.addmv_(torch.gt(scores, below, out=mask), tile.ones, alpha=-1).nonzero()[:, 0]
        if len(near) == 0:
            return
        if -int(sure.sum()) <= tile.scores.numel() // SPARSE:
            first = torch.full_like(near, tile.other * self._thresholds.tile)
            self._open.append((piece.places[some][near], first, scores[near]))
        else:
            # Many near-ties, as a collapsed space has: one float64 GEMM decides them all.
            exact = tile.exact()
            in_band = (scores > below) & (scores <= above)
            self._settle_all(piece.places[some], exact if rows is None else exact[rows], in_band)

    def _settle_all(self, places: Tensor, exact: Tensor, in_band: Tensor) -> None:
        difference = exact - self._thresholds.scores[places, None]
        self.better[places] += ((difference > self._thresholds.tie) & in_band).sum(dim=1)
        self.tied[places] += ((difference.abs() <= self._thresholds.tie) & in_band).sum(dim=1)

    def settle(self, exact: Exact) -> None:
        """Decide the entries in the bands of the tiles counted so far by their float64 scores."""
        of = self._thresholds
        for width in {near.shape[1] for _, _, near in self._open}:
            tiles = [tile for tile in self._open if tile[2].shape[1] == width]
            places, starts, near = (torch.cat(column) for column in zip(*tiles, strict=True))
            in_band = (near > of.below[places, None]) & (near <= of.above[places, None])
            entries = in_band.nonzero()
            chosen, other = places[entries[:, 0]], starts[entries[:, 0]] + entries[:, 1]
            difference = exact(of.own[chosen], other) - of.scores[chosen]
            self.better.index_add_(0, chosen, (difference > of.tie).double())
            self.tied.index_add_(0, chosen, (difference.abs() <= of.tie).double())
        self._open = []


def totals(tallies: Sequence[Tally]) -> tuple[Tensor, Tensor]:
    """Return what all workers counted, better and tied, (V,) int64."""
    better, tied = (
        torch.stack([getattr(tally, name) for tally in tallies]).sum(dim=0) for name in ("better", "tied")
    )
    return better.long(), tied.long()
