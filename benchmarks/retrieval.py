"""Retrieval between two modalities of a split, both directions, with intervals.

Protocol `generic`: all rows of the split's items are pooled, as queries of one direction and as gallery of the
other.  Captions that several items share are positives of each.  Several positives make R@k hit@k: whether any of
them is among the first k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch

from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.retrieval.metrics import mid_ranks, recall_at, reciprocal_ranks
from fusemix.retrieval.pool import RetrievalPool, pool_rows
from fusemix.retrieval.ranks import Ranks, ranks

from .bootstrap import Floats, Interval, ItemBootstrap
from .settings import BenchmarkSettings

PROTOCOL = "generic"


@dataclass(frozen=True)
class PerQuery:
    """Figures of each query of one direction.

    Attributes:
        metrics: `R@k` and `MRR` -> (M,) value of each query.
        ranks: (M,) mid-rank of each query's best positive.
        items: (M,) position of each query's item.
        gallery: number of rows that are ranked.
        chance: `R@k` of a random order.
        tie_rate: part of the queries whose best positive ties with a wrong answer.
    """

    metrics: dict[str, Floats]
    ranks: Floats
    items: npt.NDArray[np.int64]
    gallery: int
    chance: dict[str, float]
    tie_rate: float


@dataclass(frozen=True)
class DirectionResult:
    """What one direction gave: metrics with intervals, and what they were measured on."""

    name: str
    queries: int
    gallery: int
    tie_rate: float
    chance: dict[str, float]
    metrics: dict[str, Interval]


@dataclass(frozen=True)
class RetrievalResult:
    """Both directions on one split of one dataset."""

    protocol: str
    dataset: str
    fingerprint: str
    split: str
    items: int
    draws: int
    directions: tuple[DirectionResult, ...]
    mean_recall: Interval

    def to_dict(self) -> dict[str, object]:
        """Return the result as JSON has it."""
        return asdict(self)


def per_query(
    space: JointSpace, latents: PairedLatents, a: str, b: str, k: Sequence[int]
) -> tuple[PerQuery, PerQuery]:
    """Measure every query of both directions.

    Args:
        space: embeds both modalities.
        latents: the items to pool.
        a: one modality.
        b: the other.
        k: the k of R@k.

    Raises:
        FusemixError: where the latents are of other encoders than the space was trained for.
    """
    space.check_latents(latents)
    pool = pool_rows(latents, a, b)
    u, v = (space.encode(m, latents[m].values[rows]) for m, rows in ((a, pool.rows_a), (b, pool.rows_b)))
    forward, backward = ranks(u, v, pool.positives)
    swapped = RetrievalPool(b, a, pool.rows_b, pool.rows_a, pool.items_b, pool.items_a, pool.positives.flip(1))
    return _figures(forward, pool, k), _figures(backward, swapped, k)


def _figures(result: Ranks, pool: RetrievalPool, k: Sequence[int]) -> PerQuery:
    gallery = len(pool.rows_b)
    positives = torch.bincount(pool.positives[:, 0], minlength=len(pool.rows_a))[result.queries]
    # A random order of N has one of p positives among the first k with probability 1 - C(N - p, k) / C(N, k).
    chance = {f"R@{n}": float(_chance_of_hit(n, gallery, positives.numpy()).mean()) for n in k}
    metrics = {f"R@{n}": recall_at(n, result).numpy() for n in k}
    metrics["MRR"] = reciprocal_ranks(result).numpy()
    return PerQuery(
        metrics,
        mid_ranks(result).numpy(),
        pool.items_a[result.queries].numpy(),
        gallery,
        chance,
        float((result.tied > 0).float().mean()),
    )


def _chance_of_hit(k: int, gallery: int, positives: npt.NDArray[np.int64]) -> Floats:
    missed = np.ones(len(positives))
    for place in range(min(k, gallery)):
        missed *= np.clip((gallery - positives - place) / (gallery - place), 0, 1)
    return np.asarray(1 - missed)


def evaluate_retrieval(
    space: JointSpace, latents: PairedLatents, a: str, b: str, settings: BenchmarkSettings
) -> RetrievalResult:
    """Measure retrieval between two modalities of a split, with 95% intervals by bootstrap over items.

    Raises:
        FusemixError: where the split has no item, or the latents are of other encoders than the space.
    """
    split = latents.split(settings.split)
    directions = per_query(space, split, a, b, settings.k)
    return summarise(latents, directions, (f"{a} to {b}", f"{b} to {a}"), len(split), settings)


def summarise(
    latents: PairedLatents,
    directions: Sequence[PerQuery],
    names: Sequence[str],
    items: int,
    settings: BenchmarkSettings,
) -> RetrievalResult:
    """Give means and intervals of per-query figures."""
    bootstrap = ItemBootstrap(items, settings.draws, settings.seeds[0])
    results = []
    for name, one in zip(names, directions, strict=True):
        metrics = {
            key: Interval.of(values.mean(), bootstrap.means(values, one.items)) for key, values in one.metrics.items()
        }
        metrics["MedR"] = Interval.of(float(np.median(one.ranks)), bootstrap.medians(one.ranks, one.items))
        results.append(DirectionResult(name, len(one.items), one.gallery, one.tie_rate, one.chance, metrics))
    recalls = [f"R@{k}" for k in settings.k]
    parts = [(one.metrics[key], one.items) for one in directions for key in recalls]
    draws = np.mean([bootstrap.means(values, of) for values, of in parts], axis=0)
    mean_recall = Interval.of(float(np.mean([values.mean() for values, _ in parts])), draws)
    stamp = latents.dataset
    return RetrievalResult(
        PROTOCOL, stamp.name, stamp.fingerprint, settings.split, items, settings.draws, tuple(results), mean_recall
    )


def only_pair(modalities: Sequence[str]) -> tuple[str, str]:
    """Return the two modalities of a recipe.

    Raises:
        FusemixError: where there are more; the benchmark measures one pair at a time.
    """
    if len(modalities) != 2:
        raise FusemixError(f"the retrieval benchmark measures two modalities, not {', '.join(modalities)}")
    return modalities[0], modalities[1]
