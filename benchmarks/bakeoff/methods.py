"""The methods of the bake-off: what each is, which configurations are tried, and how it aligns latents.

Each has four configurations, the most promising one first: the penalty of the regressions, the number of components
of the rotation, the neighbours and the power of ASIF, the learning rate of what is trained, in multiples of the
recipe's.
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fusemix.benchmarks.aligners import (
    asif,
    cca,
    fusemix_style,
    lit_style,
    procrustes,
    ridge,
    sail_style,
    sharelock_style,
)
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.training.fuse import fuse
from fusemix.training.settings import FuseSettings

from .fractions import pairs_of

Configuration = Mapping[str, float]
LEARNING_RATES = (1.0, 0.3, 3.0, 0.1)


@dataclass(frozen=True)
class Method:
    """A way to align latents.

    Attributes:
        about: what it is, in one line.
        configurations: what may be tried, the most promising first.
        align: returns the joint space of latents for a configuration and a seed.
        seeded: whether two seeds differ on the same items.
    """

    about: str
    configurations: tuple[Configuration, ...]
    align: Callable[[PairedLatents, Configuration, int], JointSpace]
    seeded: bool


def all_methods(a: str, b: str, recipe: FuseSettings, device: str) -> dict[str, Method]:
    """Return every method by its name.

    Args:
        a: one modality: the one that maps are from, and that stays locked.
        b: the other.
        recipe: steps, batches and adapters of what is trained.
        device: where to train.
    """

    def trained(style: Callable[[tuple[int, int]], FuseSettings], about: str) -> Method:
        def align(latents: PairedLatents, configuration: Configuration, seed: int) -> JointSpace:
            settings = style((latents[a].values.shape[1], latents[b].values.shape[1]))
            rate = configuration["learning rate"]
            return _trained(latents, a, b, replace(settings, learning_rate=rate, seed=seed), device)

        rates = tuple({"learning rate": float(f"{factor * recipe.learning_rate:.3g}")} for factor in LEARNING_RATES)
        return Method(about, rates, align, seeded=True)

    return {
        "ridge": Method(
            f"ridge regression of {b} on {a}",
            tuple({"penalty": penalty} for penalty in (1e3, 1e2, 1e4, 1e1)),
            lambda latents, of, _: ridge(latents, a, b, [of["penalty"]]),
            seeded=False,
        ),
        "procrustes": Method(
            "rotation of principal components, as many as a part of the smaller side's",
            tuple({"components": share} for share in (1.0, 0.5, 0.25, 0.125)),
            lambda latents, of, _: procrustes(latents, a, b, [of["components"]]),
            seeded=False,
        ),
        "cca": Method(
            "canonical correlation analysis with a penalty, directions weighted by correlation",
            tuple({"penalty": penalty} for penalty in (1.0, 10.0, 0.1, 100.0)),
            lambda latents, of, _: cca(latents, a, b, [of["penalty"]]),
            seeded=False,
        ),
        "asif": Method(
            "cosines to training pairs, the nearest of them raised to a power; no training",
            tuple({"neighbours": k, "power": p} for k, p in ((800, 8), (800, 4), (100, 4), (100, 8))),
            lambda latents, of, _: asif(latents, a, b, [(int(of["neighbours"]), of["power"])]),
            seeded=False,
        ),
        "lit-style": trained(
            lambda dims: lit_style(recipe, a, b, dims),
            f"{a} locked, the recipe's adapter on {b}, InfoNCE without mixup",
        ),
        "sharelock-style": trained(
            lambda dims: sharelock_style(recipe, a, b, dims),
            f"{a} locked, an MLP of two residual blocks on {b}, InfoNCE without mixup",
        ),
        "sail-style": trained(
            lambda dims: sail_style(recipe, a, b, dims),
            "gated adapters (linear beyond 1,024 dims), sigmoid loss without mixup",
        ),
        "fusemix": trained(lambda _: fusemix_style(recipe, a, b), "the recipe: its adapters, loss and mixup"),
    }


def _trained(latents: PairedLatents, a: str, b: str, settings: FuseSettings, device: str) -> JointSpace:
    """Train with batches of at most half the pairs, which leaves each item a partner to mix with."""
    settings = replace(settings, batch_size=min(settings.batch_size, pairs_of(latents, a, b) // 2))
    # A line for each validation of each run would bury what matters, which warnings do.
    with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stderr(io.StringIO()):
        space = fuse(latents, settings, device=device)
    for warning in warned:
        print(f"warning: {warning.message}", file=sys.stderr, flush=True)
    return space
