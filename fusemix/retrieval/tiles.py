"""All scores of queries and gallery, a tile at a time, from one GEMM for both directions.

A tile of scores lives just long enough to be seen by all that want to count it.  On a CPU some workers draw strips of
tiles from one iterator, which also reads the embeddings, so that reading goes on while others count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor

from fusemix.retrieval.comparison import Comparison, each_alone, exact_scores

TILES_OF_A_STRIP = 8

Exact = Callable[[Tensor, Tensor], Tensor]
"""Rows of the own side and of the other, (n,) each -> the float64 scores of these pairs, (n,)."""


@dataclass(slots=True)
class Tile:
    """The float32 scores (n, m) of a tile of one side's rows with a tile of the other's; positives have -inf.

    Attributes:
        own: number of the tile among those of its rows' side.
        other: number of the tile among those of its columns' side.
        rows: (n, d) embeddings.
        columns: (m, d) embeddings.
        scores: (n, m).
        highest: (n,) the highest score of each row.
        ones: (m,).
        buffer: at least n * m numbers to write anything to.
    """

    own: int
    other: int
    rows: Tensor
    columns: Tensor
    scores: Tensor
    highest: Tensor
    ones: Tensor
    buffer: Tensor
    _exact: Tensor | None = None

    def scores_of(self, rows: Tensor) -> Tensor:
        """Return the scores of some rows, (r, m), in the layout of all."""
        if self.scores.is_contiguous():
            return self.scores.index_select(0, rows)
        return self.scores.t().index_select(1, rows).t()

    def mask_for(self, scores: Tensor) -> Tensor:
        """Return numbers to write to, shaped and laid out as some scores."""
        return self.buffer.as_strided(scores.shape, scores.stride())

    def exact(self) -> Tensor:
        """Return all scores in float64, (n, m), those of positives too."""
        if self._exact is None:
            self._exact = self.rows.double() @ self.columns.double().t()
        return self._exact


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
        positives: (p,) positions in each tile, counted row by row.
        corner: number of the first query and of the first gallery row.
    """

    row: int
    columns: range
    queries: Tensor
    gallery: Tensor
    positives: tuple[Tensor, ...]
    corner: tuple[int, int]

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the float64 scores of some of its queries with some of its gallery rows, (n,)."""
        return exact_scores(self.queries, self.gallery, rows - self.corner[0], columns - self.corner[1])

    def exact_of_columns(self, columns: Tensor, rows: Tensor) -> Tensor:
        """Return the same for the other direction."""
        return self.exact(rows, columns)


def _strips(comparison: Comparison) -> Iterator[Strip]:
    """Yield all the work in portions; the embeddings are read as it goes on."""
    tile, tiles_of_a_block = comparison.tile, comparison.queries.size // comparison.tile
    for g in range(len(comparison.gallery)):
        gallery = comparison.gallery.block(g).split(tile * TILES_OF_A_STRIP)
        for q in range(len(comparison.queries)):
            for i, rows in enumerate(comparison.queries.block(q).split(tile), q * tiles_of_a_block):
                for start, part in enumerate(gallery):
                    j = g * tiles_of_a_block + start * TILES_OF_A_STRIP
                    columns = range(j, j - (-len(part) // tile))
                    positives = comparison.positives_of(i, columns)
                    yield Strip(i, columns, rows, part, positives, (i * tile, j * tile))


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
                self._count(strip.queries, gallery, strip.row, j, positives)
            for counter in self._rows:
                counter.settle(strip.exact)
            for counter in self._columns:
                counter.settle(strip.exact_of_columns)

    def _count(self, queries: Tensor, gallery: Tensor, i: int, j: int, positives: Tensor) -> None:
        height, width = len(queries), len(gallery)
        scores = self._scores[: height * width].view(height, width)
        torch.mm(queries, gallery.t(), out=scores)
        if len(positives):
            # They are no competitors.
            self._scores.index_fill_(0, positives, -torch.inf)
        tile = Tile(i, j, queries, gallery, scores, scores.amax(dim=1), self._ones[:width], self._buffer)
        for counter in self._rows:
            counter.count(tile)
        tile = Tile(j, i, gallery, queries, scores.t(), scores.amax(dim=0), self._ones[:height], self._buffer)
        for counter in self._columns:
            counter.count(tile)


def stream(comparison: Comparison, counters: Sequence[tuple[Sequence[Counter], Sequence[Counter]]]) -> None:
    """Let each worker's counters, those of rows and those of columns, see some of the tiles, each tile seen once."""
    precision = torch.get_float32_matmul_precision()
    # A lower precision, which a program may have chosen for its training, would leave the band behind.
    torch.set_float32_matmul_precision("highest")
    try:
        strips = _Shared(_strips(comparison))
        each_alone([partial(_Worker(comparison, *both).run, strips) for both in counters])
    finally:
        torch.set_float32_matmul_precision(precision)


class _Shared(Iterator[Strip]):
    """An iterator that several threads may draw from."""

    def __init__(self, strips: Iterator[Strip]) -> None:
        self._strips, self._lock = strips, Lock()

    def __next__(self) -> Strip:
        with self._lock:
            return next(self._strips)
