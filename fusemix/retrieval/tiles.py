"""All scores of queries and gallery, a tile at a time, from one GEMM for both directions.

A tile of scores lives just long enough to be counted by all that want to count it.  On a CPU some workers draw strips
of tiles from one iterator, which also reads the embeddings, so that reading goes on while others count.

float32 scores depend in their last bits on the tile, the order and the device.  What is decided by them leaves a band
open, wide enough for any such difference, and what lies in the band is decided in float64, where two scores tie if
they differ by no more than 1e-12 of the largest possible score.  So results depend on nothing but the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor

from fusemix.retrieval.sources import Blocks, Embeddings

TILE = 512
TILES_OF_A_STRIP = 16
TILES_OF_A_BLOCK = 32
TIE = 1e-12
PAIRS_AT_ONCE = 256

Exact = Callable[[Tensor, Tensor], Tensor]
"""Rows of the own side and of the other, (n,) each -> the float64 scores of these pairs, (n,)."""


@dataclass(frozen=True, slots=True)
class Tile:
    """The float32 scores (n, m) of a tile of one side's rows with a tile of the other's; positives have -inf.

    Attributes:
        scores: (n, m).
        own: number of the tile among those of its rows' side.
        other: number of the tile among those of its columns' side.
        buffer: TILE * TILE numbers to write anything to.
        mask: the first of them as (n, m), laid out as `scores`.
        ones: (m,).
        exact: gives all scores in float64, (n, m), positives too.
    """

    scores: Tensor
    own: int
    other: int
    buffer: Tensor
    mask: Tensor
    ones: Tensor
    exact: Callable[[], Tensor]


class Counter(Protocol):
    """What looks at every tile of one direction, in any order."""

    def count(self, tile: Tile) -> None:
        """Look at a tile; its tensors are gone after the call."""
        ...

    def settle(self, exact: Exact) -> None:
        """Decide what the tiles since the last call left open; `exact` knows their rows."""
        ...


@dataclass(frozen=True)
class Strip:
    """A tile of queries and some tiles of the gallery.

    Attributes:
        row: number of the tile of queries.
        columns: numbers of the gallery's tiles.
        queries: (n, d) embeddings.
        gallery: (m, d) embeddings of all these tiles.
        positives: (p, 2) positions within each tile.
        corner: number of the first query and of the first gallery row.
    """

    row: int
    columns: range
    queries: Tensor
    gallery: Tensor
    positives: list[Tensor]
    corner: tuple[int, int]

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the float64 scores of some of its queries with some of its gallery rows, (n,)."""
        return exact_scores(self.queries, self.gallery, rows - self.corner[0], columns - self.corner[1])

    def exact_of_columns(self, columns: Tensor, rows: Tensor) -> Tensor:
        """Return the same for the other direction."""
        return self.exact(rows, columns)


class Comparison:
    """Queries, gallery, which of them belong together, and how exactly float32 can tell their scores apart.

    Attributes:
        positives: (P, 2) in the order of their tiles.
        scores: (P,) float64 scores of the positives.
        band: how far a float32 score may be from the true one, and more.
        tie: how far two float64 scores may be from each other and tie.
    """

    def __init__(self, queries: Embeddings, gallery: Embeddings, positives: Tensor) -> None:
        self.tile = TILE
        block = TILE * TILES_OF_A_BLOCK
        self.queries, self.gallery = Blocks("query", queries, block), Blocks("gallery", gallery, block)
        self._check(positives)
        largest = self.queries.largest_norm * self.gallery.largest_norm
        # No float32 sum of d products errs by more than d units of rounding, whatever its order.  The rest is what
        # float32 thresholds lose.
        self.band = float((2**-24 * self.queries.dim + 2**-22) * largest)
        self.tie = TIE * largest
        # What scaling has taken from the scores.
        self.unit = 2.0 ** (self.queries.exponent + self.gallery.exponent)
        tile = (positives[:, 0] // TILE << 32) | (positives[:, 1] // TILE)
        order = torch.argsort(tile, stable=True)
        self.positives, self._tile_of_positive = positives[order].to(self.queries.device), tile[order].cpu()
        self.scores = self.exact(self.positives[:, 0], self.positives[:, 1])

    def _check(self, positives: Tensor) -> None:
        queries, gallery = self.queries.rows, self.gallery.rows
        if self.queries.dim != self.gallery.dim:
            raise ValueError(
                f"queries of dimension {self.queries.dim} and gallery of dimension {self.gallery.dim} must be alike"
            )
        if positives.ndim != 2 or positives.shape[1] != 2:
            raise ValueError(f"positives must be (P, 2), not {tuple(positives.shape)}")
        limits = torch.tensor([queries, gallery], device=positives.device)
        if bool((positives < 0).any()) or bool((positives >= limits).any()):
            raise ValueError(f"positives point outside the {queries} queries and {gallery} gallery rows")
        if len(torch.unique(positives[:, 0] * gallery + positives[:, 1])) != len(positives):
            raise ValueError("a pair appears twice among the positives")

    @property
    def workers(self) -> int:
        """How many threads count: each works alone on its tiles.

        Threads that share each of a tile's dozen small operations would wait for each other as long as they work,
        and a tile of a thread's own stays in its core's cache.
        """
        return torch.get_num_threads() if self.queries.device.type == "cpu" else 1

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the float64 scores of any pairs, (n,)."""
        size = self.queries.size
        scores = torch.empty(len(rows), dtype=torch.float64, device=self.queries.device)
        blocks = torch.div(columns, size, rounding_mode="floor") * len(self.queries) + rows // size
        for pair in blocks.unique().tolist():
            g, q = divmod(pair, len(self.queries))
            here = (blocks == pair).nonzero()[:, 0]
            scores[here] = exact_scores(
                self.queries.block(q), self.gallery.block(g), rows[here] - q * size, columns[here] - g * size
            )
        return scores

    def strips(self) -> Iterator[Strip]:
        """Yield all the work in portions; the embeddings are read as it goes on."""
        for g in range(len(self.gallery)):
            gallery = self.gallery.block(g).split(self.tile * TILES_OF_A_STRIP)
            for q in range(len(self.queries)):
                for i, rows in enumerate(self.queries.block(q).split(self.tile), q * TILES_OF_A_BLOCK):
                    for start, part in zip(range(0, TILES_OF_A_BLOCK, TILES_OF_A_STRIP), gallery, strict=False):
                        first = g * TILES_OF_A_BLOCK + start
                        columns = range(first, first - (-len(part) // self.tile))
                        corner = i * self.tile, first * self.tile
                        yield Strip(i, columns, rows, part, self._positives_of(i, columns), corner)

    def _positives_of(self, i: int, columns: range) -> list[Tensor]:
        keys = torch.arange(columns.start, columns.stop + 1) | (i << 32)
        bounds = torch.searchsorted(self._tile_of_positive, keys).tolist()
        corner = torch.tensor([i * self.tile, 0], device=self.positives.device)
        return [
            self.positives[begin:end] - corner - torch.tensor([0, j * self.tile], device=self.positives.device)
            if begin < end
            else self.positives[:0]
            for j, begin, end in zip(columns, bounds[:-1], bounds[1:], strict=True)
        ]


def exact_scores(queries: Tensor, gallery: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the float64 scores of some pairs of rows, (n,)."""
    dim, device = queries.shape[1], queries.device
    scores = torch.empty(len(rows), dtype=torch.float64, device=device)
    # Buffers that are used again: memory fresh from the system costs more than the products.
    single = torch.empty(PAIRS_AT_ONCE, dim, device=device)
    left, right = torch.empty(2, PAIRS_AT_ONCE, dim, dtype=torch.float64, device=device)
    parts = (rows.split(PAIRS_AT_ONCE), columns.split(PAIRS_AT_ONCE), scores.split(PAIRS_AT_ONCE))
    for r, c, score in zip(*parts, strict=True):
        some = slice(len(r))
        left[some] = torch.index_select(queries, 0, r, out=single[some])
        right[some] = torch.index_select(gallery, 0, c, out=single[some])
        torch.sum(left[some].mul_(right[some]), dim=1, out=score)
    return scores


class _Worker:
    """The GEMM, tile by tile, and who counts its tiles as rows and as columns."""

    def __init__(self, comparison: Comparison, rows: Sequence[Counter], columns: Sequence[Counter]) -> None:
        self._tile = comparison.tile
        self._rows, self._columns = rows, columns
        device = comparison.queries.device
        self._scores, self._buffer = (torch.empty(self._tile * self._tile, device=device) for _ in range(2))
        self._ones = torch.ones(self._tile, device=device)

    # Threads do not inherit the mode of the one that started them.
    @torch.inference_mode()
    def run(self, strips: Iterator[Strip]) -> None:
        """Count strips for both directions until there are none left."""
        for strip in strips:
            tiles = strip.gallery.split(self._tile)
            for j, gallery, positives in zip(strip.columns, tiles, strip.positives, strict=True):
                self._count(strip.queries, gallery.t(), strip.row, j, positives)
            for counter in self._rows:
                counter.settle(strip.exact)
            for counter in self._columns:
                counter.settle(strip.exact_of_columns)

    def _count(self, queries: Tensor, gallery: Tensor, i: int, j: int, positives: Tensor) -> None:
        height, width = len(queries), gallery.shape[1]
        scores, mask = (buffer[: height * width].view(height, width) for buffer in (self._scores, self._buffer))
        torch.mm(queries, gallery, out=scores)
        if len(positives):
            # They are no competitors.
            scores[positives[:, 0], positives[:, 1]] = -torch.inf

        @cache
        def exact() -> Tensor:
            return queries.double() @ gallery.double()

        tile = Tile(scores, i, j, self._buffer, mask, self._ones[:width], exact)
        for counter in self._rows:
            counter.count(tile)
        tile = Tile(scores.t(), j, i, self._buffer, mask.t(), self._ones[:height], lambda: exact().t())
        for counter in self._columns:
            counter.count(tile)


def stream(comparison: Comparison, counters: Sequence[tuple[Sequence[Counter], Sequence[Counter]]]) -> None:
    """Let each worker's counters, those of rows and those of columns, see some of the tiles, each tile seen once."""
    precision = torch.get_float32_matmul_precision()
    # A lower precision, which a program may have chosen for its training, would leave the band behind.
    torch.set_float32_matmul_precision("highest")
    try:
        _share([_Worker(comparison, rows, columns) for rows, columns in counters], _Shared(comparison.strips()))
    finally:
        torch.set_float32_matmul_precision(precision)


def _share(workers: Sequence[_Worker], strips: Iterator[Strip]) -> None:
    if len(workers) == 1:
        workers[0].run(strips)
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(workers), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for done in [pool.submit(worker.run, strips) for worker in workers]:
                done.result()
    finally:
        torch.set_num_threads(threads)


class _Shared(Iterator[Strip]):
    """An iterator that several threads may draw from."""

    def __init__(self, strips: Iterator[Strip]) -> None:
        self._strips, self._lock = strips, Lock()

    def __next__(self) -> Strip:
        with self._lock:
            return next(self._strips)
