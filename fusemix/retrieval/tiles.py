"""All scores of queries and gallery, a tile at a time, from one GEMM for both directions.

A tile of scores lives just long enough to be seen by all that want to count it.  It is large, so that the few dozen
small operations that follow its GEMM cost little beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fusemix.retrieval.comparison import GROUP, Comparison, exact_scores

SPARSE = 32
"""Where more than one score in so many is asked for in float64, one GEMM of all of them is faster."""

Exact = Callable[[Tensor, Tensor], Tensor]
"""Rows of the own side and of the other, (n,) each -> the float64 scores of these pairs, (n,)."""


@dataclass(frozen=True, slots=True)
class Tile:
    """The float32 scores (n, m) of a tile of one side's rows with a tile of the other's; positives have -inf.

    Attributes:
        own: number of the tile among those of its rows' side.
        other: number of the tile among those of its columns' side.
        rows: (n, d) embeddings.
        columns: (m, d) embeddings.
        scores: (n, m).
        groups: (n, g, GROUP) the same scores, GROUP at a time; the last group is filled up with -inf.
        highest: (n, g) the highest score of each group.
        buffer: at least n * g * GROUP numbers to write anything to.
        exact: float64 scores of pairs of this tile and of those before it since `settle`.
    """

    own: int
    other: int
    rows: Tensor
    columns: Tensor
    scores: Tensor
    groups: Tensor
    highest: Tensor
    buffer: Tensor
    exact: Exact

    def of_groups(self, rows: Tensor, groups: Tensor) -> Tensor:
        """Return the scores of some groups of some rows, (k, GROUP)."""
        if self.groups.stride(2) != 1:
            return self.groups[rows, groups]
        # Rows of a matrix are found much faster.
        a_row = self.groups.stride(0) // GROUP
        flat = self.groups.as_strided((len(self.groups) * a_row, GROUP), (GROUP, 1))
        return flat.index_select(0, rows * a_row + groups)

    def scores_of(self, rows: Tensor) -> Tensor:
        """Return the scores of some rows, (r, m), in the layout of all."""
        if self.scores.stride(1) == 1:
            return self.scores.index_select(0, rows)
        return self.scores.t().index_select(1, rows).t()

    def mask_for(self, scores: Tensor) -> Tensor:
        """Return numbers to write to, shaped and laid out as some scores."""
        return self.buffer.as_strided(scores.shape, scores.stride())

    def all_exact(self) -> Tensor:
        """Return all scores in float64, (n, m), those of positives too."""
        return self.rows.double() @ self.columns.double().t()


class Counter(Protocol):
    """What looks at every tile of one direction, in any order."""

    def count(self, tile: Tile) -> None:
        """Look at a tile; its tensors are gone after the call."""
        ...

    def settle(self, exact: Exact) -> None:
        """Decide what the tiles since the last call left open; `exact` knows their rows."""
        ...


@dataclass(frozen=True)
class _Strip:
    """A tile of queries and a block of the gallery.

    Attributes:
        row: number of the tile of queries.
        columns: numbers of the gallery's tiles.
        queries: (n, d) embeddings.
        gallery: (m, d) embeddings of all these.
        positives: (p,) positions in the memory for each tile's scores.
        corner: number of the first query and of the first gallery row.
        tile: rows of a tile, but for the last.
    """

    row: int
    columns: range
    queries: Tensor
    gallery: Tensor
    positives: tuple[Tensor, ...]
    corner: tuple[int, int]
    tile: int

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the float64 scores of some of its queries with some of its gallery rows, (n,)."""
        rows, columns = rows - self.corner[0], columns - self.corner[1]
        if len(rows) <= len(self.queries) * self.tile // SPARSE:
            return exact_scores(self.queries, self.gallery, rows, columns)
        scores = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        for number, part in enumerate(self.gallery.split(self.tile)):
            here = (columns // self.tile == number).nonzero()[:, 0]
            if len(here):
                of_tile = self.queries.double() @ part.double().t()
                scores[here] = of_tile[rows[here], columns[here] - number * self.tile]
        return scores

    def exact_of_columns(self, columns: Tensor, rows: Tensor) -> Tensor:
        """Return the same for the other direction."""
        return self.exact(rows, columns)


def _strips(comparison: Comparison) -> Iterator[_Strip]:
    """Yield all the work in portions; the embeddings are read as it goes on."""
    tile, tiles_of_a_block = comparison.tile, comparison.queries.size // comparison.tile
    for g in range(len(comparison.gallery)):
        gallery = comparison.gallery.block(g)
        j = g * tiles_of_a_block
        columns = range(j, j - (-len(gallery) // tile))
        for q in range(len(comparison.queries)):
            for i, rows in enumerate(comparison.queries.block(q).split(tile), q * tiles_of_a_block):
                positives = comparison.positives_of(i, columns)
                yield _Strip(i, columns, rows, gallery, positives, (i * tile, j * tile), tile)


class _Counting:
    """The GEMM, tile by tile, and who counts its tiles as rows and as columns."""

    def __init__(self, comparison: Comparison, rows: Sequence[Counter], columns: Sequence[Counter]) -> None:
        self._tile, self._turned, side = comparison.tile, comparison.turned, comparison.side
        self._rows, self._columns = rows, columns
        device = comparison.queries.device
        self._scores, self._buffer = (torch.empty(side, side, device=device) for _ in range(2))

    def count(self, strip: _Strip) -> None:
        """Count a strip for both directions."""
        tiles = strip.gallery.split(self._tile)
        for j, gallery, positives in zip(strip.columns, tiles, strip.positives, strict=True):
            self._count(strip, gallery, j, positives)
        for counter in self._rows:
            counter.settle(strip.exact)
        for counter in self._columns:
            counter.settle(strip.exact_of_columns)

    def _count(self, strip: _Strip, gallery: Tensor, j: int, positives: Tensor) -> None:
        sides = [
            (strip.row, strip.queries, strip.exact, self._rows),
            (j, gallery, strip.exact_of_columns, self._columns),
        ]
        (down, rows, exact, counters), (across, columns, exact_across, counters_across) = (
            sides[::-1] if self._turned else sides
        )
        height, width = len(rows), len(columns)
        padded_height, padded_width = -(-height // GROUP) * GROUP, -(-width // GROUP) * GROUP
        if height < padded_height or width < padded_width:
            self._scores[height:padded_height], self._scores[:, width:padded_width] = -torch.inf, -torch.inf
        scores = self._scores[:height, :width]
        torch.mm(rows, columns.t(), out=scores)
        if len(positives):
            # They are no competitors.
            self._scores.view(-1).index_fill_(0, positives, -torch.inf)
        groups = self._scores[:height, :padded_width].view(height, -1, GROUP)
        tile = Tile(down, across, rows, columns, scores, groups, groups.amax(dim=2), self._buffer, exact)
        for counter in counters:
            counter.count(tile)
        groups = self._scores[:padded_height, :width].view(-1, GROUP, width)
        # As fast as along rows, but not once its dimensions are in the other order.
        highest, groups = groups.amax(dim=1).t(), groups.permute(2, 0, 1)
        tile = Tile(across, down, columns, rows, scores.t(), groups, highest, self._buffer, exact_across)
        for counter in counters_across:
            counter.count(tile)


@torch.inference_mode()
def stream(comparison: Comparison, rows: Sequence[Counter], columns: Sequence[Counter]) -> None:
    """Let the counters of rows and those of columns see each tile once."""
    precision = torch.get_float32_matmul_precision()
    # A lower precision, which a program may have chosen for its training, would leave the band behind.
    torch.set_float32_matmul_precision("highest")
    try:
        counting = _Counting(comparison, rows, columns)
        for strip in _strips(comparison):
            counting.count(strip)
    finally:
        torch.set_float32_matmul_precision(precision)
