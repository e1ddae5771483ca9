"""Exact ranks of both directions from one tiled GEMM.

The rank of a query's best positive follows from two counts: how many wrong answers score higher, and how many tie.
Counting needs no sorting and no score matrix: each tile of scores is compared with a threshold per row (queries
against gallery) and per column (the other direction) and the comparisons are summed by a matrix-vector product.

float32 scores depend in their last bits on the tile, the order and the device.  So a band around each threshold,
wide enough for any such difference, is left out of the float32 count, and its entries are decided in float64, where
two scores tie if they differ by no more than 1e-12 of the largest possible score.  Ranks then depend on nothing but
the embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix.errors import FusemixError

TILE = 768
TIE = 1e-12
PAIRS_AT_ONCE = 256
TILES_BETWEEN_SETTLEMENTS = 16
SPARSE = 32
MODERATE_EXPONENT = 16


@dataclass(frozen=True)
class Ranks:
    """How the best positive of each query is placed; the other positives of a query are no competitors.

    Attributes:
        queries: (M,) int64, the queries that have a positive at all, increasing.
        better: (M,) int64, wrong answers that score higher than the best positive.
        tied: (M,) int64, wrong answers that score the same.
    """

    queries: Tensor
    better: Tensor
    tied: Tensor


def ranks(queries: Tensor, gallery: Tensor, positives: Tensor) -> tuple[Ranks, Ranks]:
    """Rank the gallery for each query, and the queries for each gallery row, by inner product.

    Args:
        queries: (Q, d) embeddings.
        gallery: (N, d) embeddings on the same device.
        positives: (P, 2) int64 pairs (query, gallery row) that belong together, each once.

    Returns:
        The ranks of queries against gallery, and of gallery rows against queries.

    Raises:
        FusemixError: where an embedding is not finite.
        ValueError: where shapes or indices are wrong.
    """
    _check(queries, gallery, positives)
    counts = _Counts(_scaled("query", queries), _scaled("gallery", gallery), positives)
    precision = torch.get_float32_matmul_precision()
    # A lower precision, which a program may have chosen for its training, would leave the band behind.
    torch.set_float32_matmul_precision("highest")
    try:
        counts.run()
    finally:
        torch.set_float32_matmul_precision(precision)
    return counts.rows.result(), counts.columns.result()


def _check(queries: Tensor, gallery: Tensor, positives: Tensor) -> None:
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"queries {tuple(queries.shape)} and gallery {tuple(gallery.shape)} must be (Q, d) and (N, d)"
        )
    if positives.ndim != 2 or positives.shape[1] != 2:
        raise ValueError(f"positives must be (P, 2), not {tuple(positives.shape)}")
    limits = torch.tensor([len(queries), len(gallery)], device=positives.device)
    if bool((positives < 0).any()) or bool((positives >= limits).any()):
        raise ValueError(f"positives point outside the {len(queries)} queries and {len(gallery)} gallery rows")
    if len(torch.unique(positives[:, 0] * len(gallery) + positives[:, 1])) != len(positives):
        raise ValueError("a pair appears twice among the positives")


class _Side:
    """Counts of one direction; `best` is the float64 score of each row's best positive."""

    def __init__(self, own: Tensor, size: int, scores: Tensor, band: float) -> None:
        minus_infinity = torch.full((size,), -torch.inf, dtype=torch.float64, device=own.device)
        self.best = minus_infinity.scatter_reduce(0, own, scores, "amax")
        self.has_positive = torch.isfinite(self.best)
        self.better = torch.zeros(size, dtype=torch.float32, device=own.device)
        self.tied = torch.zeros_like(self.better)
        # Without a positive nothing is counted: both thresholds are infinite.
        threshold = torch.where(self.has_positive, self.best, torch.inf)
        self.above, self.below = (threshold + band).float(), (threshold - band).float()
        # Views of a tile's rows, made once: slicing them anew for every tile would cost as much as counting.
        self._tiles = list(
            zip(
                self.better.split(TILE),
                self.above[:, None].split(TILE),
                self.below[:, None].split(TILE),
                strict=True,
            )
        )
        self._uncertain: list[tuple[Tensor, Tensor, Tensor]] = []

    def count(self, scores: Tensor, own: int, other: int, mask: Tensor, ones: Tensor) -> int:
        """Count a tile (n, m) of scores, its rows this side's tile `own` and its columns the other's tile `other`.

        Returns:
            How many entries lie in the band.  They wait to be settled, unless they are more than `SPARSE` allows.
        """
        better, above, below = self._tiles[own]
        sure = torch.mv(torch.gt(scores, above, out=mask), ones)
        better.add_(sure)
        rows = sure.addmv_(torch.gt(scores, below, out=mask), ones, alpha=-1).nonzero()[:, 0]
        if len(rows) == 0:
            return 0
        in_band = -int(sure.sum())
        if in_band <= scores.numel() // SPARSE:
            self._uncertain.append((rows + own * TILE, torch.full_like(rows, other * TILE), scores[rows]))
        return in_band

    def settle_tile(self, scores: Tensor, exact: Tensor, own: int, tie: float) -> None:
        """Decide the band of one tile (n, m) of which all float64 scores are given."""
        rows = slice(own * TILE, own * TILE + len(scores))
        in_band = (scores > self.below[rows, None]) & (scores <= self.above[rows, None])
        difference = exact - self.best[rows, None]
        self.better[rows] += ((difference > tie) & in_band).sum(dim=1)
        self.tied[rows] += ((difference.abs() <= tie) & in_band).sum(dim=1)

    def settle(self, exact: Callable[[Tensor, Tensor], Tensor], tie: float) -> None:
        """Decide the entries of the bands of the tiles counted so far by their float64 scores."""
        for width in {near.shape[1] for _, _, near in self._uncertain}:
            tiles = [tile for tile in self._uncertain if tile[2].shape[1] == width]
            rows, starts, near = (torch.cat(column) for column in zip(*tiles, strict=True))
            in_band = (near > self.below[rows, None]) & (near <= self.above[rows, None])
            entries = in_band.nonzero()
            own, other = rows[entries[:, 0]], starts[entries[:, 0]] + entries[:, 1]
            difference = exact(own, other) - self.best[own]
            self.better.index_add_(0, own, (difference > tie).float())
            self.tied.index_add_(0, own, (difference.abs() <= tie).float())
        self._uncertain = []

    def result(self) -> Ranks:
        chosen = self.has_positive.nonzero()[:, 0]
        return Ranks(chosen.cpu(), self.better[chosen].long().cpu(), self.tied[chosen].long().cpu())


class _Counts:
    """The GEMM, tile by tile."""

    def __init__(self, queries: Tensor, gallery: Tensor, positives: Tensor) -> None:
        self.queries, self.gallery = queries, gallery
        device, dim = queries.device, queries.shape[1]
        largest = _largest_norm(queries) * _largest_norm(gallery)
        # No float32 sum of d products errs by more than d units of rounding, whatever its order.  The rest is what
        # float32 thresholds lose.
        band = float((2**-24 * dim + 2**-22) * largest)
        self.tie = TIE * largest
        tile = (positives[:, 0] // TILE << 32) | (positives[:, 1] // TILE)
        order = torch.argsort(tile, stable=True)
        self.positives, self._tile_of_positive = positives[order].to(device), tile[order].cpu()
        row, column = self.positives[:, 0], self.positives[:, 1]
        scores = self.exact(row, column)
        self.rows = _Side(row, len(queries), scores, band)
        self.columns = _Side(column, len(gallery), scores, band)

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the float64 scores of some pairs, (n,)."""
        scores = [
            self.queries.index_select(0, r).double().mul_(self.gallery.index_select(0, c)).sum(dim=1)
            for r, c in zip(rows.split(PAIRS_AT_ONCE), columns.split(PAIRS_AT_ONCE), strict=True)
        ]
        return torch.cat(scores)

    def run(self) -> None:
        """Count every tile for both directions."""
        mask = torch.empty(TILE * TILE, dtype=torch.float32, device=self.queries.device)
        ones = torch.ones(TILE, dtype=torch.float32, device=self.queries.device)
        for i, j, scores in self.tiles():
            (height, width), area = scores.shape, mask[: scores.numel()]
            in_rows = self.rows.count(scores, i, j, area.view(height, width), ones[:width])
            in_columns = self.columns.count(scores.t(), j, i, area.view(height, width).t(), ones[:height])
            if max(in_rows, in_columns) > scores.numel() // SPARSE:
                self._settle_dense(scores, i, j, in_rows, in_columns)
            if j % TILES_BETWEEN_SETTLEMENTS == 0:
                self.settle()
        self.settle()

    def tiles(self) -> Iterator[tuple[int, int, Tensor]]:
        """Yield row, column and float32 scores of each tile; positives are -inf, being no competitors."""
        buffer = torch.empty(TILE * TILE, dtype=torch.float32, device=self.queries.device)
        columns = [part.t() for part in self.gallery.split(TILE)]
        for i, rows in enumerate(self.queries.split(TILE)):
            bounds = torch.searchsorted(self._tile_of_positive, torch.arange(len(columns) + 1) | (i << 32)).tolist()
            for j, column in enumerate(columns):
                scores = buffer[: len(rows) * column.shape[1]].view(len(rows), -1)
                torch.mm(rows, column, out=scores)
                if bounds[j] < bounds[j + 1]:
                    own = self.positives[bounds[j] : bounds[j + 1]]
                    scores[own[:, 0] - i * TILE, own[:, 1] - j * TILE] = -torch.inf
                yield i, j, scores

    def _settle_dense(self, scores: Tensor, i: int, j: int, in_rows: int, in_columns: int) -> None:
        """Decide a tile with many near-ties, as a collapsed space has, by one float64 GEMM."""
        height, width = scores.shape
        rows, columns = self.queries[i * TILE :][:height].double(), self.gallery[j * TILE :][:width].double()
        exact = rows @ columns.t()
        if in_rows > scores.numel() // SPARSE:
            self.rows.settle_tile(scores, exact, i, self.tie)
        if in_columns > scores.numel() // SPARSE:
            self.columns.settle_tile(scores.t(), exact.t(), j, self.tie)

    def settle(self) -> None:
        """Decide the bands of both directions."""
        self.rows.settle(self.exact, self.tie)
        self.columns.settle(lambda own, other: self.exact(other, own), self.tie)


def _scaled(name: str, embeddings: Tensor) -> Tensor:
    """Return float32 embeddings whose largest number is near 1, so that no score over- or underflows.

    The factor is a power of two, which changes no comparison.
    """
    largest = float(embeddings.abs().max()) if embeddings.numel() else 0.0
    if not math.isfinite(largest):
        bad = int((~torch.isfinite(embeddings).all(dim=1)).nonzero()[0])
        raise FusemixError(f"{name} embedding {bad} is not finite: no rank can be given")
    exponent = math.frexp(largest)[1]
    if abs(exponent) <= MODERATE_EXPONENT:
        return embeddings.float()
    return torch.ldexp(embeddings.double(), torch.tensor(-exponent, device=embeddings.device)).float()


def _largest_norm(embeddings: Tensor) -> float:
    return (float(embeddings.norm(dim=1).max()) if len(embeddings) else 0.0) or 1.0
