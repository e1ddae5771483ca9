"""Exact ranks of both directions from one tiled GEMM.

The rank of a query's best positive follows from two counts: how many wrong answers score higher, and how many tie.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix.retrieval.comparison import Comparison
from fusemix.retrieval.counting import Tally, Thresholds
from fusemix.retrieval.sources import Embeddings
from fusemix.retrieval.tiles import stream


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


def ranks(queries: Embeddings, gallery: Embeddings, positives: Tensor) -> tuple[Ranks, Ranks]:
    """Rank the gallery for each query, and the queries for each gallery row, by inner product.

    Args:
        queries: (Q, d) embeddings, in memory or read some rows at a time.
        gallery: (N, d) embeddings on the same device.
        positives: (P, 2) int64 pairs (query, gallery row) that belong together, each once.

    Returns:
        The ranks of queries against gallery, and of gallery rows against queries.

    Raises:
        FusemixError: where an embedding is not finite.
        ValueError: where shapes or indices are wrong.
    """
    comparison = Comparison(queries, gallery, positives)
    sides = [_best(comparison, 0, comparison.queries.rows), _best(comparison, 1, comparison.gallery.rows)]
    rows, columns = (Tally(side) for side in sides)
    stream(comparison, [rows], [columns])
    return _result(sides[0], rows), _result(sides[1], columns)


def _best(comparison: Comparison, side: int, rows: int) -> Thresholds:
    """Return the score of each row's best positive."""
    nothing = torch.full((rows,), -torch.inf, dtype=torch.float64, device=comparison.scores.device)
    best = nothing.scatter_reduce(0, comparison.positives[:, side], comparison.scores, "amax")
    return Thresholds(torch.arange(rows, device=best.device), best, rows, comparison)


def _result(thresholds: Thresholds, tally: Tally) -> Ranks:
    chosen = torch.isfinite(thresholds.scores).nonzero()[:, 0]
    better, tied = tally.totals()
    return Ranks(chosen.cpu(), better[chosen].cpu(), tied[chosen].cpu())
