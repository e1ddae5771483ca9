"""What retrieval on a split gave: every metric of every direction with its interval, and all that it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fusemix.latents.paired import PairedLatents

from .bootstrap import Floats, Interval, ItemBootstrap
from .fold_figures import mean, mean_draws, median, median_draws
from .per_query import PerQuery
from .protocols import Protocol
from .settings import BenchmarkSettings


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
    left_out: int = 0
    """Rows that were no queries, because nothing in the gallery is right for them."""
    repeated: int = 0
    """Rows of the gallery whose content an earlier one has already."""
    several: bool = False
    """Whether some query has several right answers, so that hit@k and true recall differ."""


@dataclass(frozen=True)
class RetrievalResult:
    """The directions measured on one split of one dataset, the two of a pair one after the other."""

    protocol: Protocol
    dataset: str
    fingerprint: str
    split: str
    items: int
    rows: dict[str, int]
    """Number of the split's rows of each modality."""
    draws: int
    directions: tuple[DirectionResult, ...]
    mean_recall: Interval
    """Mean of R@k over all k and over the trained directions; over all where none of them was trained."""
    rsum: Interval
    """Sum of the same in percent."""
    warnings: tuple[str, ...] = ()
    """What keeps the figures from being compared with published ones."""

    def to_dict(self) -> dict[str, object]:
        """Return the result as JSON has it."""
        return asdict(self)


def summarise(
    split: PairedLatents,
    directions: Sequence[PerQuery],
    names: Sequence[str],
    settings: BenchmarkSettings,
    protocol: Protocol,
    trained: Sequence[bool] | None = None,
) -> RetrievalResult:
    """Give means and intervals of per-query figures.

    Args:
        split: what was measured on.
        directions: the figures of each direction.
        names: what each is called.
        settings: split, draws, seed of the draws.
        protocol: what the figures were measured by, with the R@k that were.
        trained: whether an edge aligned the modalities of each direction; all of them if left out.
    """
    bootstrap = ItemBootstrap(len(split), settings.draws, settings.seeds[0])
    told = list(trained) if trained else [True] * len(directions)
    results = tuple(
        _direction(name, one, aligned, protocol, bootstrap)
        for name, one, aligned in zip(names, directions, told, strict=True)
    )
    counted = [one for one, aligned in zip(directions, told, strict=True) if aligned or not any(told)]
    recall = _mean_recall(counted, bootstrap)
    summed = 100 * len(protocol.k) * len(counted)
    rows = {name: len(of.rows) for name, of in split.modalities.items()}
    return RetrievalResult(
        protocol,
        split.dataset.name,
        split.dataset.fingerprint,
        settings.split,
        len(split),
        rows,
        settings.draws,
        results,
        recall,
        Interval(summed * recall.value, summed * recall.low, summed * recall.high),
        tuple(protocol.warnings(len(split), rows.get("text", 0))),
    )


def _direction(
    name: str, one: PerQuery, trained: bool, protocol: Protocol, bootstrap: ItemBootstrap
) -> DirectionResult:
    metrics = {key: _interval(values, one, bootstrap) for key, values in one.metrics.items()}
    middle = median_draws(one.ranks, one.items, one.folds, protocol.median, bootstrap)
    metrics["MedR"] = Interval.of(median(one.ranks, one.folds, protocol.median), middle)
    metrics["MeanR"] = _interval(one.ranks, one, bootstrap)
    return DirectionResult(
        name,
        len(one.items),
        one.gallery,
        one.tie_rate,
        one.chance,
        metrics,
        trained,
        one.left_out,
        one.repeated,
        one.several,
    )


def _interval(values: Floats, one: PerQuery, bootstrap: ItemBootstrap) -> Interval:
    return Interval.of(mean(values, one.folds), mean_draws(values, one.items, one.folds, bootstrap))


def _mean_recall(directions: Sequence[PerQuery], bootstrap: ItemBootstrap) -> Interval:
    values, draws = [], []
    for one in directions:
        hits = np.mean([of for key, of in one.metrics.items() if key.startswith("R@")], axis=0)
        values.append(mean(hits, one.folds))
        draws.append(mean_draws(hits, one.items, one.folds, bootstrap))
    return Interval.of(float(np.mean(values)), np.mean(draws, axis=0))
