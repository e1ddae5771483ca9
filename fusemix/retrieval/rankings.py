"""All that can be said about how a gallery is ranked, from the same pass over the scores as the ranks.

Where `ranks` answers for the best positive of a query alone, a ranking has the place of every positive, from which
true recall and average precision follow, and the best answers themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix.retrieval.comparison import Comparison
from fusemix.retrieval.counting import Tally, Thresholds
from fusemix.retrieval.ordering import first_of_run, in_order
from fusemix.retrieval.ranks import Ranks
from fusemix.retrieval.shortlist import Shortlist
from fusemix.retrieval.sources import Embeddings
from fusemix.retrieval.tiles import stream
from fusemix.retrieval.top import SPARE, Found, TopK, best_wrong


@dataclass(frozen=True)
class PositiveRanks:
    """How each positive of each query is placed among all other answers, in the order of query, then of answer.

    Attributes:
        queries: (P,) int64, the query of each positive.
        answers: (P,) int64, the positive itself: a row of the gallery.
        better: (P,) int64, answers, right or wrong, that score higher.
        tied: (P,) int64, other answers, right or wrong, that score the same.
        right_better: (P,) int64, how many of the better ones are positives of the query.
        right_tied: (P,) int64, how many of the tied ones are.
    """

    queries: Tensor
    answers: Tensor
    better: Tensor
    tied: Tensor
    right_better: Tensor
    right_tied: Tensor


@dataclass(frozen=True)
class Ranking:
    """One direction.

    Attributes:
        best: how the best positive of each query is placed, as `ranks` says it.
        every: how each positive is placed.
        top: the k best answers of each query, right or wrong.
        wrong: the k best wrong answers of each query.
    """

    best: Ranks
    every: PositiveRanks
    top: TopK
    wrong: TopK


def rankings(queries: Embeddings, gallery: Embeddings, positives: Tensor, k: int) -> tuple[Ranking, Ranking]:
    """Rank the gallery for each query, and the queries for each gallery row, by inner product.

    Args:
        queries: (Q, d) embeddings, in memory or read some rows at a time.
        gallery: (N, d) embeddings on the same device.
        positives: (P, 2) int64 pairs (query, gallery row) that belong together, each once.
        k: how many of the best answers to return.

    Returns:
        The ranking of the gallery for queries, and of the queries for gallery rows.

    Raises:
        FusemixError: where an embedding is not finite.
        ValueError: where shapes or indices are wrong, or k is less than 1.
    """
    if k < 1:
        raise ValueError(f"asked for the best {k}: ask for at least 1")
    comparison = Comparison(queries, gallery, positives)
    sides = [_Side(comparison, 0, k), _Side(comparison, 1, k)]
    rows, columns = (Tally(side.thresholds) for side in sides)
    stream(comparison, [rows, sides[0].shortlist], [columns, sides[1].shortlist])
    return sides[0].result(*rows.totals()), sides[1].result(*columns.totals())


class _Side:
    """What is counted for one direction: side 0 ranks the gallery, side 1 the queries."""

    def __init__(self, comparison: Comparison, side: int, k: int) -> None:
        self._comparison, self._side, self._k = comparison, side, k
        sizes = comparison.queries.rows, comparison.gallery.rows
        self._rows, self._others = sizes[side], sizes[1 - side]
        own, other = comparison.positives[:, side], comparison.positives[:, 1 - side]
        order = torch.argsort(own * self._others + other)
        self._positives = Found(own[order], other[order], comparison.scores[order])
        self.thresholds = Thresholds(self._positives.rows, self._positives.scores, self._rows, comparison)
        self.shortlist = Shortlist(self._rows, k + SPARE, comparison.tile, own.device)

    def result(self, better: Tensor, tied: Tensor) -> Ranking:
        """Return the ranking, given how many wrong answers are better than each positive, and tied with it."""
        comparison, k = self._comparison, self._k
        wrong = best_wrong(comparison, self._side, self.shortlist, k)
        top = wrong.with_others(self._positives).best(k, comparison.tie)
        tables = [found.table(self._rows, min(k, self._others), comparison.unit) for found in (top, wrong)]
        return Ranking(self._best(better, tied), self._every(better, tied), *tables)

    def _best(self, better: Tensor, tied: Tensor) -> Ranks:
        rows, scores = self._positives.rows, self._positives.scores
        nothing = torch.full((self._rows,), -torch.inf, dtype=torch.float64, device=rows.device)
        highest = nothing.scatter_reduce(0, rows, scores, "amax")
        candidates = (scores == highest[rows]).nonzero()[:, 0]
        # Positives of one score have the same counts.
        one = candidates[first_of_run(rows[candidates]).unique()]
        return Ranks(rows[one].cpu(), better[one].cpu(), tied[one].cpu())

    def _every(self, better: Tensor, tied: Tensor) -> PositiveRanks:
        rows, answers = self._positives.rows, self._positives.answers
        order, group = in_order(rows, answers, self._positives.scores, self._comparison.tie)
        begins = first_of_run(group)
        right_better, right_tied = torch.empty_like(rows), torch.empty_like(rows)
        right_better[order] = begins - first_of_run(rows[order])
        right_tied[order] = torch.searchsorted(group, group, right=True) - begins - 1
        counts = (better + right_better, tied + right_tied, right_better, right_tied)
        return PositiveRanks(*(tensor.cpu() for tensor in (rows, answers, *counts)))
