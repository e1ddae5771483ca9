"""Running a bake-off: each configuration and each seed goes to a file of its own, so that a killed one goes on.

A method is tuned once for each fraction, on the validation items, with the first seed; then it is run with each seed
and measured on the test items.  The seed draws the items of a fraction too, the same ones for every method.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
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
        recipe: of what is trained.
        settings: methods, fractions, seeds, budget of tuning.
        measured: split, k, bootstrap draws, and the seed that draws them.
        folder: where finished runs are kept, and found again; nowhere if left out.
        device: where to train.

    Raises:
        FusemixError: for a fraction that leaves too few pairs, a protocol that is not for the dataset, a broken file
            in the folder, or as a method.
    """
    for fraction in settings.fractions:
        for seed in range(settings.seeds):
            check_fraction(latents, fraction, seed, a, b)
    methods = all_methods(a, b, recipe, device)
    oven = _Oven(latents, a, b, measured, Kept(folder, _decisive(latents, a, b, recipe)))
    baked = []
    for fraction in sorted(settings.fractions):
        for name in settings.methods:
            method = methods[name]
            tried = tuple(oven.tuned(name, method, fraction, settings.budget))
            chosen = best(tried)
            # On all items, a method without randomness has one outcome.
            seeds = range(settings.seeds if method.seeded or fraction < 1 else 1)
            runs = tuple(oven.measured(name, method, fraction, chosen.configuration, seed) for seed in seeds)
            baked.append(Baked(name, fraction, tried, runs))
            tuning, running = sum(trial.seconds for trial in tried), sum(run.seconds for run in runs) / len(runs)
            print(
                f"{name}, {fraction:g} of the training items: {_shown(chosen.configuration)}, validation MRR"
                f" {chosen.mrr:.3f}; {tuning:.1f} s to tune, {running:.1f} s to run",
                flush=True,
            )
    about = {name: methods[name].about for name in settings.methods}
    return summarised(latents, (a, b), settings, measured, oven.protocol, about, baked)


class _Oven:
    """Runs one configuration of one method on one part of the items."""

    def __init__(self, latents: PairedLatents, a: str, b: str, measured: BenchmarkSettings, kept: Kept) -> None:
        self.latents, self.a, self.b, self.kept = latents, a, b, kept
        self.stage, self.protocol = measured.split, protocol_of(latents, measured).at([COMPARED_AT])
        self.validation = Validation(latents.split("val"), [Edge(a, b)])
        self.split = latents.split(measured.split)

    def tuned(self, name: str, method: Method, fraction: float, budget: int) -> list[Trial]:
        """Try configurations with the first seed; the test items are not looked at."""
        return [self._trial(name, method, fraction, of) for of in method.configurations[:budget]]

    def measured(self, name: str, method: Method, fraction: float, of: Configuration, seed: int) -> Measured:
        """Run a configuration and measure each query of the split."""

        def compute() -> dict[str, Any]:
            space, seconds = self._aligned(method, fraction, of, seed)
            directions = per_query(space, self.split, self.a, self.b, self.protocol.k, self.protocol)
            return Measured.of(seconds, (f"{self.a} to {self.b}", f"{self.b} to {self.a}"), directions).to_dict()

        told = {
            "stage": self.stage,
            "protocol": asdict(self.protocol),
            "fraction": fraction,
            "configuration": dict(of),
            "seed": seed,
        }
        return Measured.from_dict(self.kept.get(name, told, compute))

    def _trial(self, name: str, method: Method, fraction: float, of: Configuration) -> Trial:
        def compute() -> dict[str, Any]:
            space, seconds = self._aligned(method, fraction, of, 0)
            return {"mrr": self.validation(space)["mrr"], "seconds": seconds}

        told = {"stage": "tuning", "fraction": fraction, "configuration": dict(of), "seed": 0}
        return Trial(dict(of), **self.kept.get(name, told, compute))

    def _aligned(self, method: Method, fraction: float, of: Configuration, seed: int) -> tuple[JointSpace, float]:
        part = with_fraction(self.latents, fraction, seed)
        began = time.perf_counter()
        space = method.align(part, of, seed)
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


def _shown(configuration: Configuration) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in configuration.items())
