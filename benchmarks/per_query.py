"""Retrieval between two modalities, both directions, query by query.

All rows of the items are pooled, as queries of one direction and as gallery of the other; the protocol says which of
them are right, and whether the items are cut into several galleries.  What is kept of each query is enough to give
every figure with its interval, to compare two runs on the same queries, and to show what went wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.retrieval import average_precision_at, mid_ranks, recall_at, reciprocal_ranks, true_recall_at
from fusemix.retrieval.pool import RetrievalPool, pool_rows
from fusemix.retrieval.rankings import Ranking, rankings

from .bootstrap import Floats
from .embedded import EmbeddedRows, embed_rows, read
from .protocols import GENERIC, Protocol

Integers = npt.NDArray[np.int64]

PRECISION_AT = 10
PAIRS_AT_ONCE = 4096


@dataclass(frozen=True)
class PerQuery:
    """Figures of each query of one direction.

    Attributes:
        metrics: `R@k` (hit@k), `recall@k` (true recall), `MRR` and `mAP@10` -> (M,) value of each query.
        ranks: (M,) mid-rank of each query's best positive among the wrong answers.
        better: (M,) wrong answers that score higher than the best positive.
        tied: (M,) wrong answers that score the same.
        items: (M,) position of each query's item.
        folds: (M,) which gallery it was ranked in.
        rows: (M,) the query's row in its latents file.
        right: (M,) the row of its best positive.
        wrong: (M,) the row of its best wrong answer; -1 where there is none.
        scores: (M, 2) float64 cosines of these two.
        gallery: number of rows that are ranked, in all folds together.
        left_out: rows that are no queries, because no row of the gallery is right for them.
        repeated: rows of the gallery whose content an earlier one has already.
        several: whether some query has more than one right answer.
        chance: `R@k` of a random order.
        tie_rate: part of the queries whose best positive ties with a wrong answer.
    """

    metrics: dict[str, Floats]
    ranks: Floats
    better: Integers
    tied: Integers
    items: Integers
    folds: Integers
    rows: Integers
    right: Integers
    wrong: Integers
    scores: Floats
    gallery: int
    left_out: int
    repeated: int
    several: bool
    chance: dict[str, float]
    tie_rate: float


def per_query(
    space: JointSpace, latents: PairedLatents, a: str, b: str, k: Sequence[int], protocol: Protocol = GENERIC
) -> tuple[PerQuery, PerQuery]:
    """Measure every query of both directions.

    Args:
        space: embeds both modalities.
        latents: the items to pool.
        a: one modality.
        b: the other.
        k: the k of R@k.
        protocol: says what is right, and how many galleries there are.

    Raises:
        FusemixError: where the latents are of other encoders than the space was trained for.
    """
    return query_figures(embed_rows(space, latents, (a, b)), latents, a, b, k, protocol)


def query_figures(
    embeddings: Mapping[str, Tensor | EmbeddedRows],
    latents: PairedLatents,
    a: str,
    b: str,
    k: Sequence[int],
    protocol: Protocol,
) -> tuple[PerQuery, PerQuery]:
    """Measure as `per_query` does, given the embeddings of all rows of both modalities."""
    forward, backward = [], []
    for items in protocol.galleries(latents):
        pool = _pool(latents.at(items), a, b, protocol)
        swapped = RetrievalPool(b, a, pool.rows_b, pool.rows_a, pool.items_b, pool.items_a, pool.positives.flip(1))
        first, second = (embeddings[name][torch.isin(latents[name].item_of_row, items)] for name in (a, b))
        there, back = rankings(first, second, pool.positives, 1)
        forward.append(_figures(there, pool, k, (first, second), latents[b].content, items))
        backward.append(_figures(back, swapped, k, (second, first), latents[a].content, items))
    return _joined(forward), _joined(backward)


def _pool(latents: PairedLatents, a: str, b: str, protocol: Protocol) -> RetrievalPool:
    pool = pool_rows(latents, a, b)
    if protocol.positives == "content":
        return pool
    own = pool.items_a[pool.positives[:, 0]] == pool.items_b[pool.positives[:, 1]]
    return replace(pool, positives=pool.positives[own])


def _figures(
    ranking: Ranking,
    pool: RetrievalPool,
    k: Sequence[int],
    embeddings: tuple[Tensor | EmbeddedRows, Tensor | EmbeddedRows],
    content: Tensor,
    items: Tensor,
) -> PerQuery:
    best, every = ranking.best, ranking.every
    gallery = len(pool.rows_b)
    positives = torch.bincount(pool.positives[:, 0], minlength=len(pool.rows_a))[best.queries]
    # A random order of N has one of p positives among the first k with probability 1 - C(N - p, k) / C(N, k).
    chance = {f"R@{n}": float(_chance_of_hit(n, gallery, positives.numpy()).mean()) for n in k}
    metrics = {f"R@{n}": recall_at(n, best).numpy() for n in k}
    metrics |= {f"recall@{n}": true_recall_at(n, every).numpy() for n in k}
    metrics["MRR"] = reciprocal_ranks(best).numpy()
    metrics[f"mAP@{PRECISION_AT}"] = average_precision_at(PRECISION_AT, every).numpy()
    # The positives come query by query: the first of each, after sorting, is its best.
    order = np.lexsort((every.answers.numpy(), every.better.numpy(), every.queries.numpy()))
    firsts = np.concatenate([[0], np.cumsum(positives.numpy())[:-1]])
    right, wrong = every.answers[order][firsts], ranking.wrong.answers[best.queries, 0]
    scores = torch.stack(
        [_scores(*embeddings, best.queries, right), ranking.wrong.scores[best.queries, 0]], dim=1
    ).numpy()
    return PerQuery(
        metrics,
        mid_ranks(best).numpy(),
        best.better.numpy(),
        best.tied.numpy(),
        items[pool.items_a[best.queries]].numpy(),
        np.zeros(len(best.queries), np.int64),
        pool.rows_a[best.queries].numpy(),
        pool.rows_b[right].numpy(),
        torch.where(wrong < 0, -1, pool.rows_b[wrong]).numpy(),
        scores,
        gallery,
        len(pool.rows_a) - len(best.queries),
        gallery - len(content[pool.rows_b].unique()),
        bool((positives > 1).any()),
        chance,
        float((best.tied > 0).float().mean()),
    )


def _scores(queries: Tensor | EmbeddedRows, gallery: Tensor | EmbeddedRows, own: Tensor, answers: Tensor) -> Tensor:
    """Return the float64 inner products of some pairs, (M,)."""
    parts = zip(own.split(PAIRS_AT_ONCE), answers.split(PAIRS_AT_ONCE), strict=True)
    return torch.cat([(read(queries, q).double() * read(gallery, g).double()).sum(dim=1).cpu() for q, g in parts])


def _chance_of_hit(k: int, gallery: int, positives: Integers) -> Floats:
    missed = np.ones(len(positives))
    for place in range(min(k, gallery)):
        missed *= np.clip((gallery - positives - place) / (gallery - place), 0, 1)
    return np.asarray(1 - missed)


def _joined(folds: Sequence[PerQuery]) -> PerQuery:
    """Put the queries of all folds behind each other."""
    if len(folds) == 1:
        return folds[0]

    def all_of(name: str) -> npt.NDArray[np.generic]:
        return np.concatenate([getattr(fold, name) for fold in folds])

    arrays = {name: all_of(name) for name in ("ranks", "better", "tied", "items", "rows", "right", "wrong", "scores")}
    return PerQuery(
        metrics={key: np.concatenate([fold.metrics[key] for fold in folds]) for key in folds[0].metrics},
        folds=np.repeat(np.arange(len(folds)), [len(fold.ranks) for fold in folds]),
        **{name: sum(getattr(fold, name) for fold in folds) for name in ("gallery", "left_out", "repeated")},
        several=any(fold.several for fold in folds),
        chance={key: float(np.mean([fold.chance[key] for fold in folds])) for key in folds[0].chance},
        tie_rate=float(np.average([fold.tie_rate for fold in folds], weights=[len(fold.ranks) for fold in folds])),
        **arrays,  # type: ignore[arg-type]
    )
