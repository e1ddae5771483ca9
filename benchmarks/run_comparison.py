"""Whether one run is better than another, query by query, on one protocol.

Two intervals that overlap say little: both runs find the same queries hard.  So figures are compared on the same
queries.  Intervals of differences come from draws of whole items that serve both runs; p values from letting the
runs change places in whole items; and because several metrics are tested, the p values are adjusted by Holm's method.
A run of several seeds is averaged over them for each query first, so that all of this speaks of items; what the seeds
differ by is told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from .bootstrap import Floats, Integers, Interval, ItemBootstrap, holm, permutation_p
from .comparable import check_comparable
from .fold_figures import mean, mean_draws, median, median_draws, weights
from .results import StoredDirection, StoredRun

CHANGED = 50
PERMUTATIONS = 10_000
BOOTSTRAP_DRAWS = 1_000
TEXT = "text to "


@dataclass(frozen=True)
class Seeds:
    """A run, or several that differ in their seed alone."""

    name: str
    runs: tuple[StoredRun, ...]


@dataclass(frozen=True)
class MetricDifference:
    """A metric of two runs."""

    a: float
    b: float
    difference: Interval
    """b minus a, with the 95% interval of the paired bootstrap."""
    p: float | None
    """Of the paired permutation; None for what is not tested."""
    adjusted_p: float | None
    """The same after Holm's correction for all metrics, directions and runs of the comparison."""


@dataclass(frozen=True)
class ChangedQuery:
    """A query whose right answer moved."""

    item: str
    source: str
    described_by: str
    """First text of the item, where it has one and the query is none."""
    a: float
    """Rank of its best right answer in run a; of several seeds their mean."""
    b: float


@dataclass(frozen=True)
class DirectionDifference:
    """Two runs in one direction."""

    name: str
    queries: int
    metrics: dict[str, MetricDifference]
    wins: int
    """Queries whose right answer has a better rank in b."""
    ties: int
    losses: int
    gained: tuple[ChangedQuery, ...]
    """Queries that gained most reciprocal rank from a to b, most first."""
    lost: tuple[ChangedQuery, ...]
    seeds_of_a: dict[str, list[float]]
    """Metric -> what each seed gave; empty where there is one."""
    seeds_of_b: dict[str, list[float]]


@dataclass(frozen=True)
class PairedRuns:
    """Run b against run a."""

    a: str
    b: str
    directions: tuple[DirectionDifference, ...]


@dataclass(frozen=True)
class RunComparison:
    """Runs against the first of them, on one protocol, dataset and split."""

    protocol: str
    dataset: str
    fingerprint: str
    split: str
    items: int
    draws: int
    permutations: int
    tests: int
    """How many p values the correction is for."""
    warnings: tuple[str, ...]
    """Lines that say what a difference may be of, beside the models."""
    pairs: tuple[PairedRuns, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the comparison as JSON has it."""
        return asdict(self)


def compare_runs(
    runs: Sequence[Seeds], *, draws: int = BOOTSTRAP_DRAWS, permutations: int = PERMUTATIONS, seed: int = 0
) -> RunComparison:
    """Compare runs with the first of them.

    Args:
        runs: two or more, measured on one protocol.
        draws: of the bootstrap.
        permutations: draws of the permutation test.
        seed: decides all draws.

    Raises:
        FusemixError: where two are of different protocols, datasets, splits or galleries.
    """
    every = [run for of in runs for run in of.runs]
    for other in every[1:]:
        check_comparable(every[0], other)
    first = every[0]
    names = [name for name in first.directions if all(name in run.directions for run in every)]
    bootstrap = ItemBootstrap(len(first.items), draws, seed)
    found = [
        PairedRuns(
            runs[0].name,
            other.name,
            tuple(_direction(name, runs[0], other, bootstrap, permutations, seed) for name in names),
        )
        for other in runs[1:]
    ]
    pairs, tests = _corrected(found)
    record = first.record
    return RunComparison(
        record["protocol"]["name"],
        record["dataset"],
        record["fingerprint"],
        record["split"],
        len(first.items),
        draws,
        permutations,
        tests,
        _warnings(runs),
        pairs,
    )


def _warnings(runs: Sequence[Seeds]) -> tuple[str, ...]:
    """Return a line for each run that learned from other splits than the first."""
    splits = [_learned_from(of) for of in runs]
    return tuple(
        f"{other.name} learned from {' and '.join(learned)}, {runs[0].name} from {' and '.join(splits[0])}: the"
        " difference is one of training data too"
        for other, learned in zip(runs[1:], splits[1:], strict=True)
        if splits[0] and learned and learned != splits[0]
    )


def _learned_from(seeds: Seeds) -> list[str]:
    """Return the splits that a run was trained on; none where its result is of a time that did not say."""
    return sorted({split for run in seeds.runs for split in run.record.get("learned_from", ())})


def _direction(
    name: str, a: Seeds, b: Seeds, bootstrap: ItemBootstrap, permutations: int, seed: int
) -> DirectionDifference:
    one, other = (averaged([run.directions[name] for run in seeds.runs]) for seeds in (a, b))
    items, folds = one.items, one.folds
    protocol = a.runs[0].record["protocol"]
    metrics = {}
    for metric in protocol["metrics"]:
        if metric in one.metrics and metric in other.metrics:
            difference = other.metrics[metric] - one.metrics[metric]
            metrics[metric] = MetricDifference(
                mean(one.metrics[metric], folds),
                mean(other.metrics[metric], folds),
                Interval.of(mean(difference, folds), mean_draws(difference, items, folds, bootstrap)),
                permutation_p(difference * weights(folds), items, permutations, seed),
                None,
            )
    middles = [median(of.ranks, folds, protocol["median"]) for of in (one, other)]
    draws = [median_draws(of.ranks, items, folds, protocol["median"], bootstrap) for of in (one, other)]
    between = Interval.of(middles[1] - middles[0], draws[1] - draws[0])
    metrics["MedR"] = MetricDifference(middles[0], middles[1], between, None, None)
    moved = np.sign(one.ranks - other.ranks)
    gain = other.metrics["MRR"] - one.metrics["MRR"]
    order = np.argsort(-gain, kind="stable")
    told = _Told(a.runs[0], name)
    return DirectionDifference(
        name,
        len(items),
        metrics,
        int((moved > 0).sum()),
        int((moved == 0).sum()),
        int((moved < 0).sum()),
        told.changed(one, other, order[gain[order] > 0][:CHANGED]),
        told.changed(one, other, order[gain[order] < 0][::-1][:CHANGED]),
        _of_seeds(a, name, metrics),
        _of_seeds(b, name, metrics),
    )


def averaged(seeds: Sequence[StoredDirection]) -> StoredDirection:
    """Return the figures of each query, averaged over seeds."""
    if len(seeds) == 1:
        return seeds[0]
    return replace(
        seeds[0],
        metrics={key: _mean([of.metrics[key] for of in seeds]) for key in seeds[0].metrics},
        ranks=_mean([of.ranks for of in seeds]),
    )


def _mean(values: Sequence[Floats]) -> Floats:
    return np.asarray(np.mean(values, axis=0))


class _Told:
    """Tells the queries of a direction in words."""

    def __init__(self, run: StoredRun, direction: str) -> None:
        self._ids = run.items
        texts = (
            of for name, of in run.directions.items() if name.startswith(TEXT) and not direction.startswith(TEXT)
        )
        self._texts: dict[int, str] = {}
        for of in texts:
            for item, source in zip(of.items.tolist(), of.sources, strict=True):
                self._texts.setdefault(item, source)

    def changed(self, one: StoredDirection, other: StoredDirection, places: Integers) -> tuple[ChangedQuery, ...]:
        queries = zip(places.tolist(), one.items[places].tolist(), strict=True)
        return tuple(
            ChangedQuery(
                self._ids[item],
                one.sources[query],
                self._texts.get(item, ""),
                float(one.ranks[query]),
                float(other.ranks[query]),
            )
            for query, item in queries
        )


def _of_seeds(seeds: Seeds, direction: str, metrics: Mapping[str, object]) -> dict[str, list[float]]:
    if len(seeds.runs) == 1:
        return {}
    each = [run.directions[direction] for run in seeds.runs]
    return {
        metric: [mean(of.metrics[metric], of.folds) for of in each] for metric in metrics if metric in each[0].metrics
    }


def _corrected(pairs: Sequence[PairedRuns]) -> tuple[tuple[PairedRuns, ...], int]:
    """Return the pairs with their p values adjusted for all of them together, and how many these are."""
    tested = [
        one.p
        for pair in pairs
        for direction in pair.directions
        for one in direction.metrics.values()
        if one.p is not None
    ]
    adjusted = iter(holm(tested))

    def with_adjusted(direction: DirectionDifference) -> DirectionDifference:
        metrics = {
            metric: one if one.p is None else replace(one, adjusted_p=next(adjusted))
            for metric, one in direction.metrics.items()
        }
        return replace(direction, metrics=metrics)

    done = tuple(replace(pair, directions=tuple(map(with_adjusted, pair.directions))) for pair in pairs)
    return done, len(tested)
