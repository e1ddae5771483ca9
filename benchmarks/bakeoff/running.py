"""Running a bake-off: each configuration and each seed goes to a file of its own, so that a killed one goes on.

A method is tuned once for each fraction, on the validation items, with the first seed; what it chose is run with the
other seeds too, and each run is measured on the test items.  A seed also draws the items of a fraction, the same ones
for every method.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

from fusemix.benchmarks.per_query import per_query
from fusemix.benchmarks.retrieval import protocol_of
from fusemix.benchmarks.settings import BenchmarkSettings
from fusemix.errors import FusemixError, first_line
from fusemix.files import replacing
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.objective import Edge
from fusemix.training.settings import FuseSettings
from fusemix.training.validation import Validation

from .fractions import check_fraction, with_fraction
from .methods import Configuration, Method, all_methods
from .results import COMPARED_AT, Baked, Bakeoff, Measured, Trial, best, summarised
from .settings import BakeoffSettings

FORMAT = 1


@dataclass(frozen=True)
class Kept:
    """What was computed before: a folder of files, each named by a hash of all that decides what is in it."""

    folder: Path | None
    decisive: Mapping[str, Any]

    def get(self, method: str, told: Mapping[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what lies in the file of a method and what is told of its run, or compute and write it.

        Raises:
            FusemixError: where the file is broken.
        """
        if self.folder is None:
            return compute()
        text = json.dumps({"format": FORMAT, **self.decisive, "method": method, **told}, sort_keys=True)
        path = self.folder / f"{method}-{sha256(text.encode()).hexdigest()[:16]}.json"
        if path.is_file():
            try:
                return dict(json.loads(path.read_text())["found"])
            except (ValueError, KeyError, TypeError) as error:
                raise FusemixError(
                    f"{path} cannot be read ({first_line(error)}): remove it and run the bake-off again"
                ) from error
        found = compute()
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"run": json.loads(text), "found": found}) + "\n")
        return found


def bakeoff(
    latents: PairedLatents,
    a: str,
    b: str,
    recipe: FuseSettings,
    settings: BakeoffSettings,
    measured: BenchmarkSettings,
    *,
    folder: Path | None = None,
    device: str = "auto",
) -> Bakeoff:
    """Tune, run and measure methods on the same latents, by fraction of the training items.

    Args:
        latents: items with the splits `train`, `val` and the one to measure.
        a: one modality; maps are from it, and it is the one that stays locked where one does.
        b: the other.
        recipe: of what is trained; nothing is refitted.
        settings: methods, fractions, seeds, budget of tuning.
        measured: split, k, bootstrap draws, and the seed that draws them.
        folder: where finished runs are kept, and found again; nowhere if left out.
        device: where to train.

    Raises:
        FusemixError: for a fraction that leaves too few pairs, a protocol that is not for the dataset, a broken file
            in the folder, or as a method.
    """
    # Methods are chosen by validation alone, and all learn from the same items.
    recipe = replace(recipe, refit=False)
    for fraction in settings.fractions:
        for seed in range(settings.seeds):
            check_fraction(latents, fraction, seed, a, b)
    methods = all_methods(a, b, recipe, device)
    oven = _Oven(latents, a, b, measured, Kept(folder, _decisive(latents, a, b, recipe)))
    baked = []
    for fraction in sorted(settings.fractions):
        for name in settings.methods:
            # On all items, a method without randomness has one outcome.
            seeds = settings.seeds if methods[name].seeded or fraction < 1 else 1
            baked.append(_Cell(oven, name, methods[name], fraction).baked(settings.budget, seeds))
            print(_line(baked[-1]), flush=True)
    about = {name: methods[name].about for name in settings.methods}
    return summarised(latents, (a, b), settings, measured, oven.protocol, about, baked)


class _Oven:
    """What all cells of a bake-off are made in."""

    def __init__(self, latents: PairedLatents, a: str, b: str, measured: BenchmarkSettings, kept: Kept) -> None:
        self.latents, self.a, self.b, self.kept = latents, a, b, kept
        self.stage, self.protocol = measured.split, protocol_of(latents, measured).at([COMPARED_AT])
        self.validation = Validation(latents.split("val"), [Edge(a, b)])
        self.split = latents.split(measured.split)

    def measured(self, space: JointSpace, seconds: float) -> Measured:
        """Measure each query of the split."""
        directions = per_query(space, self.split, self.a, self.b, self.protocol.k, self.protocol)
        return Measured.of(seconds, (f"{self.a} to {self.b}", f"{self.b} to {self.a}"), directions)


class _Cell:
    """Tunes and runs one method on one fraction of the training items."""

    def __init__(self, oven: _Oven, name: str, method: Method, fraction: float) -> None:
        self.oven, self.name, self.method, self.fraction = oven, name, method, fraction
        # The best of what was tried here, which is the first seed's run of what is chosen.
        self.held: tuple[Configuration, JointSpace, float] | None = None

    def baked(self, budget: int, seeds: int) -> Baked:
        """Try configurations with the first seed, then run the best one with each and read the measured split."""
        tried: list[Trial] = []
        for configuration in self.method.configurations[:budget]:
            tried.append(self._tried(configuration, max((trial.mrr for trial in tried), default=-1.0)))
        chosen = best(tried).configuration
        return Baked(self.name, self.fraction, tuple(tried), tuple(self._run(chosen, seed) for seed in range(seeds)))

    def _tried(self, configuration: Configuration, highest: float) -> Trial:
        def compute() -> dict[str, Any]:
            space, seconds = self._aligned(configuration, 0)
            mrr = self.oven.validation(space)["mrr"]
            if mrr > highest:
                self.held = configuration, space, seconds
            return {"mrr": mrr, "seconds": seconds}

        told = {"stage": "tuning", "fraction": self.fraction, "configuration": dict(configuration), "seed": 0}
        return Trial(dict(configuration), **self.oven.kept.get(self.name, told, compute))

    def _run(self, configuration: Configuration, seed: int) -> Measured:
        def compute() -> dict[str, Any]:
            if seed == 0 and self.held is not None and self.held[0] == configuration:
                return self.oven.measured(*self.held[1:]).to_dict()
            self.held = None
            return self.oven.measured(*self._aligned(configuration, seed)).to_dict()

        told = {
            "stage": self.oven.stage,
            "protocol": asdict(self.oven.protocol),
            "fraction": self.fraction,
            "configuration": dict(configuration),
            "seed": seed,
        }
        return Measured.from_dict(self.oven.kept.get(self.name, told, compute))

    def _aligned(self, configuration: Configuration, seed: int) -> tuple[JointSpace, float]:
        part = with_fraction(self.oven.latents, self.fraction, seed)
        began = time.perf_counter()
        space = self.method.align(part, configuration, seed)
        return space, time.perf_counter() - began


def _decisive(latents: PairedLatents, a: str, b: str, recipe: FuseSettings) -> dict[str, Any]:
    """Return what all runs follow from, but for the machine and the versions."""
    sides: Sequence[str] = (a, b)
    return {
        "dataset": latents.dataset.fingerprint or latents.dataset.name,
        "items": len(latents),
        "encoders": {
            name: asdict(spec) if (spec := latents[name].spec) else {"dim": latents[name].values.shape[1]}
            for name in sides
        },
        "pair": list(sides),
        "fuse": asdict(replace(recipe, seed=0, residency="auto")),
    }


def _line(cell: Baked) -> str:
    chosen = best(cell.tried)
    told = ", ".join(f"{name} {value:g}" for name, value in chosen.configuration.items())
    tuning, running = sum(trial.seconds for trial in cell.tried), fmean(run.seconds for run in cell.runs)
    return (
        f"{cell.method}, {cell.fraction:g} of the training items: {told}, validation MRR {chosen.mrr:.3f};"
        f" {tuning:.1f} s to tune, {running:.1f} s to run"
    )
