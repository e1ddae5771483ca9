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

from fusemix.retrieval.tiles import Comparison, Exact, Tile

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
    """Some thresholds of one tile's rows: views made once, as slicing anew for each tile would cost much.

    `index` has the row of each within the tile, and is None where each row has one.
    """

    start: int
    index: Tensor | None
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
        tile, own = self._thresholds.tile, self._thresholds.own
        pieces = []
        for start in range(begin, end, tile):
            part = slice(start, min(start + tile, end))
            within = own[part] - i * tile
            views = (self.better[part], self._thresholds.above[part, None], self._thresholds.below[part, None])
            one_each = torch.equal(
                own[begin:end], torch.arange(i * tile, min((i + 1) * tile, self._thresholds.rows), device=own.device)
            )
            pieces.append(_Piece(start, None if one_each else within, *views))
        return pieces

    def count(self, tile: Tile) -> None:
        """Count a tile; entries in the band wait to be settled, or are settled at once where they are many."""
        for piece in self._pieces[tile.own]:
            if piece.index is None:
                scores, mask = tile.scores, tile.mask
            else:
                scores = tile.scores.index_select(0, piece.index)
                mask = tile.buffer[: scores.numel()].view(scores.shape)
            sure = torch.mv(torch.gt(scores, piece.above, out=mask), tile.ones)
            piece.better.add_(sure)
            rows = sure.addmv_(torch.gt(scores, piece.below, out=mask), tile.ones, alpha=-1).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            if -int(sure.sum()) <= scores.numel() // SPARSE:
                near = torch.full_like(rows, tile.other * self._thresholds.tile)
                self._open.append((rows + piece.start, near, scores[rows]))
            else:
                # Many near-ties, as a collapsed space has: one float64 GEMM decides them all.
                exact = tile.exact()
                self._settle_all(piece, scores, exact if piece.index is None else exact[piece.index])

    def _settle_all(self, piece: _Piece, scores: Tensor, exact: Tensor) -> None:
        part = slice(piece.start, piece.start + len(scores))
        in_band = (scores > piece.below) & (scores <= piece.above)
        difference = exact - self._thresholds.scores[part, None]
        self.better[part] += ((difference > self._thresholds.tie) & in_band).sum(dim=1)
        self.tied[part] += ((difference.abs() <= self._thresholds.tie) & in_band).sum(dim=1)

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
