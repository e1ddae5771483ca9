"""Metrics of ranks, and how each treats ties.

Where wrong answers tie with the positive, R@k and the reciprocal rank are expectations over random tie-breaking;
the median takes mid-ranks.  With one positive a query, R@k is recall; with several it is hit@k: whether any of them
is among the first k.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fusemix.retrieval.ranks import Ranks


def recall_at(k: int, ranks: Ranks) -> Tensor:
    """Return each query's expected hit among the first k, (M,) float64 in [0, 1].

    With b better and t tied answers the positive's place is uniform on b + 1 ... b + t + 1.
    """
    return ((k - ranks.better).double() / (ranks.tied + 1)).clamp(0, 1)


def reciprocal_ranks(ranks: Ranks) -> Tensor:
    """Return each query's expected reciprocal rank, (M,) float64: the mean of 1 / r over the places it may take."""
    first, places = ranks.better.double() + 1, ranks.tied.double() + 1
    spread = (torch.digamma(first + places) - torch.digamma(first)) / places
    return torch.where(ranks.tied == 0, 1 / first, spread)


def mean_reciprocal_rank(ranks: Ranks) -> float:
    """Return the mean reciprocal rank over queries."""
    return float(reciprocal_ranks(ranks).mean())


def mid_ranks(ranks: Ranks) -> Tensor:
    """Return each query's mid-rank, (M,) float64, counted from 1."""
    return ranks.better.double() + 1 + ranks.tied.double() / 2


def median_rank(ranks: Ranks) -> float:
    """Return the median of the mid-ranks, the mean of the middle two for an even number of queries."""
    return float(mid_ranks(ranks).quantile(0.5))
