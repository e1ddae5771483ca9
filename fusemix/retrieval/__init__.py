"""Exact ranks of cross-modal retrieval, their metrics, and the pools of queries that a split gives."""

from fusemix.retrieval.metrics import (
    average_precision_at,
    floored_median_rank,
    mean_rank,
    mean_reciprocal_rank,
    median_rank,
    mid_ranks,
    recall_at,
    reciprocal_ranks,
    true_recall_at,
)
from fusemix.retrieval.pool import RetrievalPool, pool_rows
from fusemix.retrieval.rankings import PositiveRanks, Ranking, rankings
from fusemix.retrieval.ranks import Ranks, ranks
from fusemix.retrieval.sources import Embeddings, EmbeddingSource
from fusemix.retrieval.top import TopK

__all__ = [
    "EmbeddingSource",
    "Embeddings",
    "PositiveRanks",
    "Ranking",
    "Ranks",
    "RetrievalPool",
    "TopK",
    "average_precision_at",
    "floored_median_rank",
    "mean_rank",
    "mean_reciprocal_rank",
    "median_rank",
    "mid_ranks",
    "pool_rows",
    "rankings",
    "ranks",
    "recall_at",
    "reciprocal_ranks",
    "true_recall_at",
]
