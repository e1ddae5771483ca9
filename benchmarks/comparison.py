"""What the method adds: FuseMix, the same without mixup, and a ridge map, on the same split.

Each trained method runs with several seeds.  A query's figures are averaged over the seeds first, then over queries,
so that an interval speaks of items and the spread of seeds is reported apart.  Differences to ridge are paired: the
same bootstrap draws of items serve both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.training.fuse import fuse
from fusemix.training.settings import FuseSettings

from .aligners import ridge
from .bootstrap import Interval, ItemBootstrap
from .fold_figures import mean, mean_draws
from .per_query import PerQuery, per_query
from .retrieval import protocol_of
from .retrieval_result import RetrievalResult, summarise
from .settings import BenchmarkSettings

BASELINE = "ridge"


@dataclass(frozen=True)
class MethodResult:
    """One method: its figures averaged over seeds, and what the seeds gave."""

    name: str
    result: RetrievalResult
    seeds: tuple[int, ...]
    """Empty for a method without randomness."""
    of_seeds: dict[str, dict[str, list[float]]]
    """Direction -> metric -> the mean of each seed."""
    difference: dict[str, dict[str, Interval]]
    """Direction -> metric -> paired difference to ridge; empty for ridge itself."""


@dataclass(frozen=True)
class Comparison:
    """All methods on one split.

    Attributes:
        refit: whether each was at last trained anew, on the items of train and val together.
    """

    methods: tuple[MethodResult, ...]
    refit: bool

    def to_dict(self) -> dict[str, object]:
        """Return the comparison as JSON has it."""
        return asdict(self)


def compare(
    latents: PairedLatents,
    a: str,
    b: str,
    fuse_settings: FuseSettings,
    settings: BenchmarkSettings,
    *,
    runs: Path | None = None,
    device: str = "auto",
) -> Comparison:
    """Train and measure FuseMix, FuseMix without mixup, and ridge.

    Args:
        latents: items with the splits `train`, `val` and the one to measure.
        a: one modality; ridge maps it to the other.
        b: the other.
        fuse_settings: of FuseMix; its seed is replaced by each of the benchmark's, and where it is refitted, so is
            ridge.
        settings: split, metrics, draws, seeds.
        runs: folder for the trained runs; finished ones are not trained again.
        device: where to train.
    """
    split, protocol = latents.split(settings.split), protocol_of(latents, settings)

    def trained(name: str, method: FuseSettings) -> list[tuple[PerQuery, PerQuery]]:
        measured = []
        for seed in settings.seeds:
            folder = runs / f"{name}-seed{seed}" if runs else None
            print(f"{name}, seed {seed}", flush=True)
            space = fuse(latents, replace(method, seed=seed), run=folder, device=device)
            measured.append(per_query(space, split, a, b, protocol.k, protocol))
        return measured

    def once(space: JointSpace) -> list[tuple[PerQuery, PerQuery]]:
        return [per_query(space, split, a, b, protocol.k, protocol)]

    measured: Mapping[str, list[tuple[PerQuery, PerQuery]]] = {
        "fusemix": trained("fusemix", fuse_settings),
        "no-mixup": trained("no-mixup", replace(fuse_settings, mixup="none")),
        BASELINE: once(ridge(latents, a, b, refit=fuse_settings.refit)),
    }
    averaged = {name: _average(runs_of) for name, runs_of in measured.items()}
    names = (f"{a} to {b}", f"{b} to {a}")
    bootstrap = ItemBootstrap(len(split), settings.draws, settings.seeds[0])
    methods = []
    for name, directions in averaged.items():
        differences = {
            direction: _differences(mine, base, bootstrap)
            for direction, mine, base in zip(names, directions, averaged[BASELINE], strict=True)
        }
        methods.append(
            MethodResult(
                name,
                summarise(split, directions, names, settings, protocol),
                settings.seeds if name != BASELINE else (),
                _means_of_seeds(names, measured[name]),
                differences if name != BASELINE else {},
            )
        )
    return Comparison(tuple(methods), fuse_settings.refit)


def _average(seeds: list[tuple[PerQuery, PerQuery]]) -> tuple[PerQuery, PerQuery]:
    def over_seeds(pick: Callable[[tuple[PerQuery, PerQuery]], PerQuery]) -> PerQuery:
        runs = [pick(seed) for seed in seeds]
        return replace(
            runs[0],
            metrics={key: np.mean([run.metrics[key] for run in runs], axis=0) for key in runs[0].metrics},
            ranks=np.mean([run.ranks for run in runs], axis=0),
            tie_rate=float(np.mean([run.tie_rate for run in runs])),
        )

    return over_seeds(lambda both: both[0]), over_seeds(lambda both: both[1])


def _differences(mine: PerQuery, base: PerQuery, bootstrap: ItemBootstrap) -> dict[str, Interval]:
    found = {}
    for key, values in mine.metrics.items():
        difference = values - base.metrics[key]
        found[key] = Interval.of(
            mean(difference, mine.folds), mean_draws(difference, mine.items, mine.folds, bootstrap)
        )
    return found


def _means_of_seeds(
    names: tuple[str, str], seeds: list[tuple[PerQuery, PerQuery]]
) -> dict[str, dict[str, list[float]]]:
    return {
        name: {key: [mean(both[i].metrics[key], both[i].folds) for both in seeds] for key in seeds[0][i].metrics}
        for i, name in enumerate(names)
    }
