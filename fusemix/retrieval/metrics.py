"""Metrics of ranks, and how each treats ties.

Where answers tie, R@k, the reciprocal rank, true recall and average precision are expectations over random
tie-breaking; mean and median rank take mid-ranks.  With one positive a query, R@k is recall; with several it is
hit@k: whether any of them is among the first k, and true recall says how many of them are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fusemix.retrieval.rankings import PositiveRanks
from fusemix.retrieval.ranks import Ranks


def recall_at(k: int, ranks: Ranks) -> Tensor:
    """Return each query's expected hit@k, (M,) float64 in [0, 1]: whether any positive is among the first k.

    This is the R@k that papers on images and captions print (Karpathy and Fei-Fei, CVPR 2015), also where a picture
    has five captions.  With b better and t tied answers the positive's place is uniform on b + 1 ... b + t + 1.
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


def mean_rank(ranks: Ranks) -> float:
    """Return the mean of the mid-ranks, MeanR of VSE++ (fartashf/vsepp evaluation.py)."""
    return float(mid_ranks(ranks).mean())


def median_rank(ranks: Ranks) -> float:
    """Return the median of the mid-ranks, the mean of the middle two for an even number of queries.

    The MedR of video retrieval, as in MIL-NCE (antoine77340/MIL-NCE_HowTo100M).
    """
    return float(mid_ranks(ranks).quantile(0.5))


def floored_median_rank(ranks: Ranks) -> float:
    """Return the median of the mid-ranks, less any fraction: floor(median) + 1 of ranks counted from 0.

    The MedR of audio retrieval, as LAION CLAP (LAION-AI/CLAP) and VSE++ print it.
    """
    return float(math.floor(median_rank(ranks)))


def true_recall_at(k: int, ranks: PositiveRanks) -> Tensor:
    """Return the expected part of each query's positives among the first k, (M,) float64, queries increasing.

    The R@k of DCASE's language-based audio retrieval.  A query with more than k positives cannot reach 1.
    """
    return _mean_of_query(ranks, ((k - ranks.better).double() / (ranks.tied + 1)).clamp(0, 1))


def average_precision_at(k: int, ranks: PositiveRanks) -> Tensor:
    """Return each query's expected average precision among the first k, (M,) float64, queries increasing.

    The sum of i / r over the positives with r <= k, where r is the place of the i-th positive, over the number of
    all positives, as DCASE and XinhaoMei/audio-text_retrieval have it: with more than k positives it stays below 1.
    Its mean at k = 10 is mAP@10.  Every order of a group of ties is as probable as any other: a positive is at each
    of the group's places with equal probability, and the other positives are spread evenly over the other places
    (McSherry and Najork, ECIR 2008).
    """
    first, size = ranks.better[:, None] + 1, ranks.tied[:, None] + 1
    place = torch.arange(1, k + 1, device=first.device)
    possible = (place >= first) & (place < first + size)
    others = (place - first).double() / (size - 1).clamp(min=1) * ranks.right_tied[:, None]
    positives = 1 + ranks.right_better[:, None] + others
    return _mean_of_query(ranks, (possible * positives / place / size).sum(dim=1))


def _mean_of_query(ranks: PositiveRanks, values: Tensor) -> Tensor:
    counts = torch.bincount(ranks.queries)
    sums = torch.bincount(ranks.queries, values)
    return (sums / counts)[counts > 0]
