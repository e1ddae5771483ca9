"""Queries and gallery, and the scores of some pairs of them, in float64.

float32 scores depend in their last bits on the tile, the order and the device.  What is decided by them leaves a band
open, wide enough for any such difference, and what lies in the band is decided in float64, where two scores tie if
they differ by no more than 1e-12 of the largest possible score.  So results depend on nothing but the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from fusemix.retrieval.sources import Blocks, Embeddings

TILE = 768
TILES_OF_A_BLOCK = 16
TIE = 1e-12
PAIRS_AT_ONCE = 256

Result = TypeVar("Result")


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
        pair_of_blocks = columns // size * len(self.queries) + rows // size
        for pair in pair_of_blocks.unique().tolist():
            g, q = divmod(pair, len(self.queries))
            score = partial(exact_scores, self.queries.block(q), self.gallery.block(g))
            here = (pair_of_blocks == pair).nonzero()[:, 0]
            parts = here.chunk(min(self.workers, -(-len(here) // PAIRS_AT_ONCE)))
            found = [partial(score, rows[part] - q * size, columns[part] - g * size) for part in parts]
            scores[here] = torch.cat(each_alone(found))
        return scores

    def positives_of(self, i: int, columns: range) -> tuple[Tensor, ...]:
        """Return the positives in each tile of a strip, (p,) positions in the tile, counted row by row."""
        keys = torch.arange(columns.start, columns.stop + 1) | (i << 32)
        bounds = torch.searchsorted(self._tile_of_positive, keys)
        pairs = self.positives[int(bounds[0]) : int(bounds[-1])]
        row, column, tile = pairs[:, 0] - i * self.tile, pairs[:, 1] % self.tile, pairs[:, 1] // self.tile
        # The gallery's last tile may be narrower.
        width = (self.gallery.rows - tile * self.tile).clamp(max=self.tile)
        of_tiles: tuple[Tensor, ...] = (row * width + column).split(bounds.diff().tolist())
        return of_tiles


def exact_scores(queries: Tensor, gallery: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the float64 scores of some pairs of rows, (n,)."""
    dim, device = queries.shape[1], queries.device
    scores = torch.empty(len(rows), dtype=torch.float64, device=device)
    # Buffers that are used again: memory fresh from the system costs more than the products.
    buffer = min(PAIRS_AT_ONCE, len(rows)), dim
    single = torch.empty(buffer, device=device)
    left, right = torch.empty(2, *buffer, dtype=torch.float64, device=device)
    parts = (rows.split(PAIRS_AT_ONCE), columns.split(PAIRS_AT_ONCE), scores.split(PAIRS_AT_ONCE))
    for r, c, score in zip(*parts, strict=True):
        some = slice(len(r))
        left[some] = torch.index_select(queries, 0, r, out=single[some])
        right[some] = torch.index_select(gallery, 0, c, out=single[some])
        torch.sum(left[some].mul_(right[some]), dim=1, out=score)
    return scores


def each_alone(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Return what each task returns, each in a thread of its own on one core."""
    if len(tasks) == 1:
        return [tasks[0]()]
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(tasks), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return [done.result() for done in [pool.submit(task) for task in tasks]]
    finally:
        torch.set_num_threads(threads)
