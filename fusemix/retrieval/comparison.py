"""Queries and gallery, and the scores of some pairs of them, in float64.

float32 scores depend in their last bits on the tile, the order and the device.  What is decided by them leaves a band
open, wide enough for any such difference, and what lies in the band is decided in float64, where two scores tie if
they differ by no more than 1e-12 of the largest possible score.  So results depend on nothing but the embeddings.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fusemix.retrieval.sources import Blocks, Embeddings

TILE = 1600
TILES_OF_A_BLOCK = 16
GROUP = 64
"""Neighbouring scores of a row, or of a column, that are looked at only if the highest of them matters."""
TIE = 1e-12
PAIRS_AT_ONCE = 256


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
        # Of the square memory for a tile's scores, which are grouped both ways.
        self.side = -(-TILE // GROUP) * GROUP
        block = TILE * TILES_OF_A_BLOCK
        self.queries, self.gallery = Blocks("query", queries, block), Blocks("gallery", gallery, block)
        self._check(positives)
        # The side that has more rows will have more groups looked at: its rows are those of a tile's memory.
        self.turned = self.gallery.rows > self.queries.rows
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

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the float64 scores of any pairs, (n,)."""
        size = self.queries.size
        scores = torch.empty(len(rows), dtype=torch.float64, device=self.queries.device)
        pair_of_blocks = columns // size * len(self.queries) + rows // size
        for pair in pair_of_blocks.unique().tolist():
            g, q = divmod(pair, len(self.queries))
            here = (pair_of_blocks == pair).nonzero()[:, 0]
            of_blocks = rows[here] - q * size, columns[here] - g * size
            scores[here] = exact_scores(self.queries.block(q), self.gallery.block(g), *of_blocks)
        return scores

    def positives_of(self, i: int, columns: range) -> tuple[Tensor, ...]:
        """Return the positives in each tile of a strip, (p,) positions in the memory for its scores."""
        keys = torch.arange(columns.start, columns.stop + 1) | (i << 32)
        bounds = torch.searchsorted(self._tile_of_positive, keys)
        pairs = self.positives[int(bounds[0]) : int(bounds[-1])]
        row, column = pairs[:, 0] - i * self.tile, pairs[:, 1] % self.tile
        places = column * self.side + row if self.turned else row * self.side + column
        of_tiles: tuple[Tensor, ...] = places.split(bounds.diff().tolist())
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
