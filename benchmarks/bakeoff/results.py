"""What a bake-off found: a cell for each method and fraction, with intervals and paired differences to FuseMix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fusemix.benchmarks.bootstrap import Floats, Integers, Interval, ItemBootstrap, holm, permutation_p
from fusemix.benchmarks.fold_figures import mean, mean_draws, weights
from fusemix.benchmarks.per_query import PerQuery
from fusemix.benchmarks.protocols import Protocol
from fusemix.benchmarks.run_comparison import PERMUTATIONS
from fusemix.benchmarks.settings import BenchmarkSettings
from fusemix.latents.paired import PairedLatents

from .fractions import pairs_of, with_fraction
from .settings import BakeoffSettings

BASELINE = "fusemix"
COMPARED_AT = 1
COMPARED = f"R@{COMPARED_AT}"


@dataclass(frozen=True)
class Trial:
    """A configuration, its mean reciprocal rank on the validation items, and the seconds that it took."""

    configuration: Mapping[str, float]
    mrr: float
    seconds: float


@dataclass(frozen=True)
class Queries:
    """Figures of the queries of one direction.

    Attributes:
        items: (M,) position of each query's item in the split.
        folds: (M,) which gallery it was ranked in.
        metrics: `R@k`, `MRR` and the others of the retrieval benchmark -> (M,) value of each query.
        gallery: number of rows that are ranked.
        left_out: rows that are no queries, because no row of the gallery is right for them.
        chance: R@1 of a random order.
        tie_rate: part of the queries whose best right answer ties with a wrong one.
    """

    items: Integers
    folds: Integers
    metrics: Mapping[str, Floats]
    gallery: int
    left_out: int
    chance: float
    tie_rate: float


@dataclass(frozen=True)
class Measured:
    """One run on the measured items."""

    seconds: float
    directions: Mapping[str, Queries]

    @classmethod
    def of(cls, seconds: float, names: Sequence[str], directions: Sequence[PerQuery]) -> Measured:
        """Take what the retrieval benchmark measured."""
        return cls(
            seconds,
            {
                name: Queries(
                    of.items, of.folds, of.metrics, of.gallery, of.left_out, of.chance[COMPARED], of.tie_rate
                )
                for name, of in zip(names, directions, strict=True)
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the run as JSON has it."""
        directions = {
            name: {
                **asdict(of),
                "items": of.items.tolist(),
                "folds": of.folds.tolist(),
                "metrics": {key: values.tolist() for key, values in of.metrics.items()},
            }
            for name, of in self.directions.items()
        }
        return {"seconds": self.seconds, "directions": directions}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measured:
        """Read what `to_dict` gave."""
        directions = {
            name: Queries(
                **{
                    **of,
                    "items": np.array(of["items"], np.int64),
                    "folds": np.array(of["folds"], np.int64),
                    "metrics": {key: np.array(values, np.float64) for key, values in of["metrics"].items()},
                }
            )
            for name, of in data["directions"].items()
        }
        return cls(data["seconds"], directions)


@dataclass(frozen=True)
class Baked:
    """What was tried and run of one method on one fraction."""

    method: str
    fraction: float
    tried: tuple[Trial, ...]
    runs: tuple[Measured, ...]


@dataclass(frozen=True)
class Difference:
    """A paired difference to FuseMix on the same fraction."""

    interval: Interval
    p: float
    """Of the paired permutation of items, adjusted by Holm for all differences of the bake-off."""


@dataclass(frozen=True)
class Cell:
    """One method on one fraction of the training items."""

    method: str
    fraction: float
    items: int
    """Training items of the fraction, those of the first seed."""
    pairs: int
    """Those of them that have both modalities."""
    runs: int
    """Seeds that were averaged, query by query."""
    chosen: Mapping[str, float]
    """The configuration that validated best."""
    tried: tuple[Trial, ...]
    """All that were tried."""
    tuning_seconds: float
    """What trying them took."""
    seconds: float
    """What the chosen one took, a mean over the runs."""
    metrics: Mapping[str, Mapping[str, Interval]]
    """Direction -> metric -> its value with the interval."""
    of_seeds: Mapping[str, Mapping[str, list[float]]]
    """Direction -> metric -> the value of each run."""
    tie_rate: Mapping[str, float]
    """Direction -> part of the queries whose best right answer ties with a wrong one, a mean over the runs."""
    difference: Mapping[str, Difference]
    """Direction -> R@1 minus FuseMix's; empty for FuseMix, and where it did not take part."""


@dataclass(frozen=True)
class Bakeoff:
    """All methods on all fractions."""

    dataset: str
    fingerprint: str
    split: str
    items: int
    protocol: str
    warnings: tuple[str, ...]
    """What keeps the figures from being compared with published ones."""
    pair: tuple[str, str]
    queries: Mapping[str, int]
    left_out: Mapping[str, int]
    """Direction -> rows that were no queries, because nothing in the gallery is right for them."""
    gallery: Mapping[str, int]
    chance: Mapping[str, float]
    """Direction -> R@1 of a random order."""
    settings: BakeoffSettings
    draws: int
    permutations: int
    methods: Mapping[str, str]
    """Name -> what it is."""
    cells: tuple[Cell, ...]

    @property
    def directions(self) -> list[str]:
        """Both directions, as `image to text`."""
        return list(self.queries)

    def cell(self, method: str, fraction: float) -> Cell:
        """Return the cell of a method and a fraction."""
        return next(cell for cell in self.cells if (cell.method, cell.fraction) == (method, fraction))

    def to_dict(self) -> dict[str, Any]:
        """Return the bake-off as JSON has it."""
        return asdict(self)


def best(tried: Sequence[Trial]) -> Trial:
    """Return the trial that validated best, the first of equals."""
    return max(tried, key=lambda trial: trial.mrr)


def summarised(
    latents: PairedLatents,
    pair: tuple[str, str],
    settings: BakeoffSettings,
    measured: BenchmarkSettings,
    protocol: Protocol,
    about: Mapping[str, str],
    baked: Sequence[Baked],
) -> Bakeoff:
    """Give means with intervals, and differences to FuseMix.

    Args:
        latents: what was aligned.
        pair: both modalities.
        settings: of the bake-off.
        measured: split, draws, and the seed that draws them.
        protocol: what the figures were measured by.
        about: method -> what it is.
        baked: what was tried and run of each method on each fraction.
    """
    split, seed = latents.split(measured.split), measured.seeds[0]
    bootstrap = ItemBootstrap(len(split), measured.draws, seed)
    means = {(one.method, one.fraction): _mean(one.runs) for one in baked}
    cells = []
    for one in baked:
        mine = means[one.method, one.fraction]
        base = {} if one.method == BASELINE else means.get((BASELINE, one.fraction), {})
        differences = {direction: _difference(mine[direction], of, bootstrap, seed) for direction, of in base.items()}
        metrics = {
            direction: {key: _interval(values, of, bootstrap) for key, values in of.metrics.items()}
            for direction, of in mine.items()
        }
        part = with_fraction(latents, one.fraction, 0)
        cells.append(
            Cell(
                one.method,
                one.fraction,
                int((part.splits == "train").sum()),
                pairs_of(part, *pair),
                len(one.runs),
                best(one.tried).configuration,
                one.tried,
                sum(trial.seconds for trial in one.tried),
                float(np.mean([run.seconds for run in one.runs])),
                metrics,
                {direction: _of_seeds(one.runs, direction) for direction in mine},
                {direction: of.tie_rate for direction, of in mine.items()},
                differences,
            )
        )
    some = means[baked[0].method, baked[0].fraction]
    return Bakeoff(
        latents.dataset.name,
        latents.dataset.fingerprint,
        measured.split,
        len(split),
        protocol.name,
        tuple(protocol.warnings(len(split), len(split["text"].rows) if "text" in split.modalities else 0)),
        pair,
        {direction: len(of.items) for direction, of in some.items()},
        {direction: of.left_out for direction, of in some.items()},
        {direction: of.gallery for direction, of in some.items()},
        {direction: of.chance for direction, of in some.items()},
        settings,
        measured.draws,
        PERMUTATIONS,
        about,
        _adjusted(cells),
    )


def _mean(runs: Sequence[Measured]) -> dict[str, Queries]:
    """Return the figures of each query, averaged over runs."""
    return {
        direction: replace(
            of,
            metrics={
                key: np.mean([run.directions[direction].metrics[key] for run in runs], axis=0) for key in of.metrics
            },
            tie_rate=float(np.mean([run.directions[direction].tie_rate for run in runs])),
        )
        for direction, of in runs[0].directions.items()
    }


def _interval(values: Floats, of: Queries, bootstrap: ItemBootstrap) -> Interval:
    return Interval.of(mean(values, of.folds), mean_draws(values, of.items, of.folds, bootstrap))


def _of_seeds(runs: Sequence[Measured], direction: str) -> dict[str, list[float]]:
    of = [run.directions[direction] for run in runs]
    return {key: [mean(one.metrics[key], one.folds) for one in of] for key in of[0].metrics}


def _difference(mine: Queries, base: Queries, bootstrap: ItemBootstrap, seed: int) -> Difference:
    difference = mine.metrics[COMPARED] - base.metrics[COMPARED]
    weighed = difference * weights(mine.folds)
    return Difference(_interval(difference, mine, bootstrap), permutation_p(weighed, mine.items, PERMUTATIONS, seed))


def _adjusted(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Adjust the p values of all differences for being several."""
    places = [(number, direction) for number, cell in enumerate(cells) for direction in cell.difference]
    adjusted = dict(zip(places, holm([cells[at].difference[way].p for at, way in places]), strict=True))
    return tuple(
        replace(
            cell,
            difference={
                direction: replace(of, p=adjusted[number, direction]) for direction, of in cell.difference.items()
            },
        )
        for number, cell in enumerate(cells)
    )
