"""Exact ranks of cross-modal retrieval, their metrics, and the pools of queries that a split gives."""

from fusemix.retrieval.metrics import mean_reciprocal_rank, median_rank, recall_at, reciprocal_ranks
from fusemix.retrieval.pool import RetrievalPool, pool_rows
from fusemix.retrieval.ranks import Ranks, ranks

__all__ = [
    "Ranks",
    "RetrievalPool",
    "mean_reciprocal_rank",
    "median_rank",
    "pool_rows",
    "ranks",
    "recall_at",
    "reciprocal_ranks",
]
