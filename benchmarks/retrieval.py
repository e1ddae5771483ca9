"""Retrieval between the modalities of a split, both directions of each pair, with intervals.

Protocol `generic`: all rows of the split's items are pooled, as queries of one direction and as gallery of the
other.  Captions that several items share are positives of each.  Several positives make R@k hit@k: whether any of
them is among the first k.  A pair of modalities that no edge aligned is measured too, as ImageBind does: what lies
close to the same third modality lies close to each other, and how close is said under the name emergent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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
    trained: bool = True
    """Whether an edge aligned the two modalities; where none did, the direction is emergent."""


@dataclass(frozen=True)
class RetrievalResult:
    """The directions measured on one split of one dataset, the two of a pair one after the other."""

    protocol: str
    dataset: str
    fingerprint: str
    split: str
    items: int
    draws: int
    directions: tuple[DirectionResult, ...]
    mean_recall: Interval
    """Mean of R@k over all k and over the trained directions; over all where none of them was trained."""

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
    return _per_query(_embeddings(space, latents, (a, b)), latents, a, b, k)


def _embeddings(space: JointSpace, latents: PairedLatents, modalities: Iterable[str]) -> dict[str, Tensor]:
    """Embed all rows of each modality once, however many pairs it is in."""
    space.check_latents(latents)
    return {name: space.encode(name, latents[name].values[latents[name].rows]) for name in modalities}


def _per_query(
    embeddings: Mapping[str, Tensor], latents: PairedLatents, a: str, b: str, k: Sequence[int]
) -> tuple[PerQuery, PerQuery]:
    pool = pool_rows(latents, a, b)
    forward, backward = ranks(embeddings[a], embeddings[b], pool.positives)
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


def evaluate_pairs(
    space: JointSpace, latents: PairedLatents, trained: Sequence[tuple[str, str]], settings: BenchmarkSettings
) -> RetrievalResult:
    """Measure retrieval between every two modalities that a split has, as `evaluate_retrieval` does for one pair.

    Args:
        space: embeds the modalities.
        latents: of one dataset; those of its modalities that the space does not have are left out.
        trained: the pairs that an edge aligned; they come first, in this order.
        settings: split, metrics, draws.

    Raises:
        FusemixError: where no item of the split has two modalities, or as `evaluate_retrieval`.
    """
    split = latents.split(settings.split)
    pairs = measurable_pairs(split, [name for name in latents.modalities if name in space.modalities], trained)
    if not pairs:
        raise FusemixError(
            f"no item of the split {settings.split!r} of {latents.dataset.name!r} has two of"
            f" {', '.join(space.modalities)}: nothing to retrieve"
        )
    embeddings = _embeddings(space, split, sorted({name for pair in pairs for name in pair}))
    measured: list[PerQuery] = []
    names: list[str] = []
    aligned: list[bool] = []
    for a, b in pairs:
        measured += _per_query(embeddings, split, a, b, settings.k)
        names += [f"{a} to {b}", f"{b} to {a}"]
        aligned += 2 * [(a, b) in trained]
    return summarise(latents, measured, names, len(split), settings, aligned)


def measurable_pairs(
    latents: PairedLatents, modalities: Iterable[str], trained: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return the pairs of modalities that an item has both of, the trained ones first."""
    known = {frozenset(pair) for pair in trained}
    others = [pair for pair in combinations(modalities, 2) if frozenset(pair) not in known]
    there = {name: of.counts > 0 for name, of in latents.modalities.items()}
    return [(a, b) for a, b in [*trained, *others] if {a, b} <= there.keys() and bool((there[a] & there[b]).any())]


def summarise(
    latents: PairedLatents,
    directions: Sequence[PerQuery],
    names: Sequence[str],
    items: int,
    settings: BenchmarkSettings,
    trained: Sequence[bool] | None = None,
) -> RetrievalResult:
    """Give means and intervals of per-query figures.

    Args:
        latents: what was measured on.
        directions: the figures of each direction.
        names: what each is called.
        items: number of items of the split.
        settings: split, metrics, draws.
        trained: whether an edge aligned the modalities of each direction; all of them if left out.
    """
    bootstrap = ItemBootstrap(items, settings.draws, settings.seeds[0])
    told = list(trained) if trained else [True] * len(directions)
    results = []
    for name, one, aligned in zip(names, directions, told, strict=True):
        metrics = {
            key: Interval.of(values.mean(), bootstrap.means(values, one.items)) for key, values in one.metrics.items()
        }
        metrics["MedR"] = Interval.of(float(np.median(one.ranks)), bootstrap.medians(one.ranks, one.items))
        results.append(DirectionResult(name, len(one.items), one.gallery, one.tie_rate, one.chance, metrics, aligned))
    recalls = [f"R@{k}" for k in settings.k]
    counted = [one for one, aligned in zip(directions, told, strict=True) if aligned or not any(told)]
    parts = [(one.metrics[key], one.items) for one in counted for key in recalls]
    draws = np.mean([bootstrap.means(values, of) for values, of in parts], axis=0)
    mean_recall = Interval.of(float(np.mean([values.mean() for values, _ in parts])), draws)
    stamp = latents.dataset
    return RetrievalResult(
        PROTOCOL, stamp.name, stamp.fingerprint, settings.split, items, settings.draws, tuple(results), mean_recall
    )
