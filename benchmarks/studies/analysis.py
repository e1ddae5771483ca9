"""What a study found: figures of each level with intervals, and paired differences to the baseline.

A query's figures are averaged over the seeds first, then over queries, then over both directions, and items are drawn
anew for the interval; so it speaks of items, given these runs.  How far the seeds lie apart is told beside it, and a
difference counts only where each seed has its sign.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fusemix.benchmarks.bootstrap import Floats, Interval, ItemBootstrap
from fusemix.errors import FusemixError

from .design import Study, Verdict, changed, jobs_of, references_of, setting_of
from .measuring import SPLITS, Record, SplitFigures
from .running import read

DRAWS, SEED = 2000, 0


@dataclass(frozen=True)
class Difference:
    """A level minus the baseline, paired by item and seed."""

    mrr: Interval
    recall: Interval
    of_seeds: tuple[float, ...]
    """Difference of the MRR of each seed."""

    @property
    def verdict(self) -> Verdict:
        """Whether the interval of the MRR leaves out 0 and each seed has its sign."""
        if self.mrr.low > 0 and min(self.of_seeds) > 0:
            return "better"
        if self.mrr.high < 0 and max(self.of_seeds) < 0:
            return "worse"
        return "open"


@dataclass(frozen=True)
class OnSplit:
    """A level on one split, the mean of both directions."""

    mrr: Interval
    recall: Interval
    """R@1."""
    of_seeds: tuple[float, ...]
    """MRR of each seed."""
    difference: Difference | None = None
    """None for the baseline and for references."""


@dataclass(frozen=True)
class LevelResult:
    """A level, or a reference beside the levels."""

    name: str
    phrase: str
    splits: Mapping[str, OnSplit]
    value: Any = None
    """What it gives the setting that the study decides."""
    items: int | None = None
    """Training items."""
    batch_size: int | None = None
    seconds: float | None = None
    """Mean time of a run."""
    shared: float | None = None
    """R2 with which the shared factors are read, mean over modalities and seeds; of synthetic worlds only."""
    private: float | None = None
    """The same of private factors."""


@dataclass(frozen=True)
class StudyResult:
    """Everything that the page of findings tells of a study."""

    name: str
    question: str
    fixed: str
    data: str
    items: Mapping[str, int]
    """Split -> items that are measured."""
    edge: tuple[str, str]
    seeds: int
    setting: str | None
    base: int
    """Place of the baseline among the levels."""
    claims: Mapping[Verdict, str]
    levels: tuple[LevelResult, ...]
    references: tuple[LevelResult, ...]
    machines: tuple[Mapping[str, Any], ...]
    """What the runs were done on: each that differs."""

    @property
    def baseline(self) -> LevelResult:
        """The level that the others are compared with."""
        return self.levels[self.base]

    @property
    def compared(self) -> tuple[LevelResult, ...]:
        """The levels without the baseline."""
        return self.levels[: self.base] + self.levels[self.base + 1 :]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StudyResult:
        """Read what `to_dict` gave."""
        levels, references = (tuple(_level(one) for one in data[key]) for key in ("levels", "references"))
        own = {key: data[key] for key in cls.__dataclass_fields__}
        tuples = {"edge": tuple(data["edge"]), "machines": tuple(data["machines"])}
        return cls(**{**own, **tuples, "levels": levels, "references": references})


def _level(data: Mapping[str, Any]) -> LevelResult:
    def on_split(of: Mapping[str, Any]) -> OnSplit:
        against = of["difference"]
        difference = against and Difference(
            Interval(**against["mrr"]), Interval(**against["recall"]), tuple(against["of_seeds"])
        )
        return OnSplit(Interval(**of["mrr"]), Interval(**of["recall"]), tuple(of["of_seeds"]), difference)

    return LevelResult(**{**data, "splits": {split: on_split(of) for split, of in data["splits"].items()}})


def analyse(study: Study, root: Path) -> StudyResult:
    """Return what the runs of a study found.

    Raises:
        FusemixError: where runs are missing.
    """
    of_levels = [[read(job, root) for job in jobs_of(study, level)] for level in study.levels]
    of_references = {name: read(job, root) for name, job in references_of(study).items()}
    everything = [*(record for records in of_levels for record in records), *of_references.values()]
    if None in everything:
        raise FusemixError(
            f"the study {study.name} lacks {everything.count(None)} of its {len(everything)} runs: run it first"
        )
    levels = [[record for record in records if record is not None] for records in of_levels]
    base = levels[study.base]
    found = []
    for level, records in zip(study.levels, levels, strict=True):
        settings = changed(study.fuse, level.change)
        value = setting_of(settings, study.setting) if study.setting else None
        found.append(_result(level.name, level.phrase, records, base, value))
    references = [_result(str(name), str(name), [of], None) for name, of in of_references.items() if of is not None]
    machines = {json.dumps(of.machine): of.machine for of in everything if of is not None}
    return StudyResult(
        study.name,
        study.question,
        study.fixed,
        study.data.name,
        {split: of.items for split, of in base[0].splits.items()},
        study.edge,
        study.seeds,
        study.setting,
        study.base,
        study.claims,
        tuple(found),
        tuple(references),
        tuple(machines.values()),
    )


def _result(
    name: str, phrase: str, records: Sequence[Record], base: Sequence[Record] | None, value: Any = None
) -> LevelResult:
    splits = {
        split: on_split(
            [record.splits[split] for record in records],
            [record.splits[split] for record in base] if base and base is not records else None,
        )
        for split in SPLITS
    }
    training = [record.training for record in records if record.training]
    factors = {
        kind: [of[kind] for record in records for of in record.recovered.values()] for kind in ("shared", "private")
    }
    return LevelResult(
        name,
        phrase,
        splits,
        value,
        int(training[0]["items"]) if training else None,
        int(training[0]["batch_size"]) if training else None,
        float(np.mean([of["seconds"] for of in training])) if training else None,
        float(np.mean(factors["shared"])) if factors["shared"] else None,
        float(np.mean(factors["private"])) if factors["private"] else None,
    )


def on_split(seeds: Sequence[SplitFigures], base: Sequence[SplitFigures] | None = None) -> OnSplit:
    """Return the figures of the runs of a level, and their difference to those of the baseline.

    Args:
        seeds: one for each seed.
        base: the baseline's, of the same seeds on the same items.
    """
    return OnSplit(
        _interval(seeds, "MRR"),
        _interval(seeds, "R@1"),
        tuple(_mean(one, "MRR") for one in seeds),
        None if base is None else _difference(seeds, base),
    )


def _difference(seeds: Sequence[SplitFigures], base: Sequence[SplitFigures]) -> Difference:
    for mine, other in zip(seeds, base, strict=True):
        for name, direction in mine.directions.items():
            if not np.array_equal(direction.items, other.directions[name].items):
                raise FusemixError("two levels were measured on different queries: their difference is not paired")
    of_seeds = tuple(_mean(mine, "MRR") - _mean(other, "MRR") for mine, other in zip(seeds, base, strict=True))
    return Difference(_interval(seeds, "MRR", base), _interval(seeds, "R@1", base), of_seeds)


def _interval(seeds: Sequence[SplitFigures], metric: str, base: Sequence[SplitFigures] | None = None) -> Interval:
    bootstrap = _bootstrap(seeds[0].items)
    values, draws = [], []
    for name, direction in seeds[0].directions.items():
        averaged = _of_queries(seeds, name, metric)
        if base is not None:
            averaged = averaged - _of_queries(base, name, metric)
        values.append(averaged.mean())
        draws.append(bootstrap.means(averaged, direction.items))
    return Interval.of(float(np.mean(values)), np.mean(draws, axis=0))


def _of_queries(seeds: Sequence[SplitFigures], direction: str, metric: str) -> Floats:
    """Return each query's figure, averaged over the seeds."""
    return np.asarray(np.mean([one.directions[direction].metrics[metric] for one in seeds], axis=0))


def _mean(figures: SplitFigures, metric: str) -> float:
    return float(np.mean([one.metrics[metric].mean() for one in figures.directions.values()]))


@lru_cache(maxsize=8)
def _bootstrap(items: int) -> ItemBootstrap:
    return ItemBootstrap(items, DRAWS, SEED)


def chosen_level(result: StudyResult) -> LevelResult:
    """Return the level that validation chooses: the best of those better than the baseline, else the baseline."""
    better = [
        level
        for level in result.compared
        if (difference := level.splits["val"].difference) is not None and difference.verdict == "better"
    ]
    return max(better, key=lambda level: level.splits["val"].mrr.value, default=result.baseline)


def read_results(folder: Path) -> list[tuple[StudyResult, dict[str, Any]]]:
    """Return all results that were written to a folder, each with what it was obtained with."""
    return [
        (StudyResult.from_dict(data["study"]), data)
        for path in sorted(folder.glob("*.json"))
        for data in [json.loads(path.read_text())]
    ]
