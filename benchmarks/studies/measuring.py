"""One run of a study: what it trains, and the figures of each query of the validation and test items."""

from __future__ import annotations

import contextlib
import io
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from fusemix.benchmarks.aligners import ridge
from fusemix.benchmarks.bootstrap import Floats
from fusemix.benchmarks.context import machine
from fusemix.benchmarks.per_query import per_query
from fusemix.benchmarks.synthetic import Recovered, SyntheticSettings, SyntheticWorld, recovery
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.retrieval import ranks, recall_at, reciprocal_ranks
from fusemix.training.fuse import fuse
from fusemix.training.settings import FuseSettings

from .data import load_data
from .design import Job

SPLITS = ("val", "test")
METRICS = ("R@1", "MRR")


@dataclass(frozen=True)
class Direction:
    """Figures of the queries of one direction.

    Attributes:
        items: (M,) position of each query's item in the split.
        metrics: `R@1` and `MRR` -> (M,) value of each query.
    """

    items: npt.NDArray[np.int64]
    metrics: Mapping[str, Floats]


@dataclass(frozen=True)
class SplitFigures:
    """Both directions on one split."""

    items: int
    directions: Mapping[str, Direction]


@dataclass(frozen=True)
class Record:
    """What a job gave: figures of each split, and what training took."""

    splits: Mapping[str, SplitFigures]
    training: Mapping[str, float] = field(default_factory=dict)
    """Items, batch size, steps, chosen step, seconds; empty for a reference."""
    recovered: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """In a synthetic world: modality -> R2 with which its `shared` and `private` factors are read."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """What it was measured with."""

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON has it."""
        splits = {
            split: {
                "items": of.items,
                "directions": {
                    name: {"items": one.items.tolist(), **{key: one.metrics[key].tolist() for key in METRICS}}
                    for name, one in of.directions.items()
                },
            }
            for split, of in self.splits.items()
        }
        others = {key: dict(getattr(self, key)) for key in ("training", "recovered", "machine")}
        return {"splits": splits, **others}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """Read what `to_dict` gave."""
        splits = {
            split: SplitFigures(
                of["items"],
                {
                    name: Direction(np.array(one["items"], np.int64), {key: np.array(one[key]) for key in METRICS})
                    for name, one in of["directions"].items()
                },
            )
            for split, of in data["splits"].items()
        }
        return cls(splits, data["training"], data["recovered"], data["machine"])


def measure(job: Job, root: Path) -> Record:
    """Train what a job says, or compute its reference, and measure it on the validation and test items.

    Raises:
        FusemixError: where latents are missing, or as `fuse`.
    """
    return replace(_measured(job, root), machine=machine())


def _measured(job: Job, root: Path) -> Record:
    if isinstance(job.method, FuseSettings):
        latents = load_data(job.data, root)
        space, training = _trained(latents, fitting(job.method, latents))
        return replace(_of_space(job, space, latents), training=training)
    if not isinstance(job.data.source, SyntheticSettings):
        raise FusemixError(f"{job.method!r} is a reference for synthetic worlds only")
    if job.method == "ridge map":
        latents = load_data(job.data, root)
        return _of_space(job, ridge(latents, *job.edge), latents)
    return _of_world(SyntheticWorld(job.data.source), job.edge, ideal=job.method == "ceiling")


def fitting(settings: FuseSettings, latents: PairedLatents) -> FuseSettings:
    """Return the settings with batches of at most half the training items, which leaves each item a partner."""
    return replace(settings, batch_size=min(settings.batch_size, int((latents.splits == "train").sum()) // 2))


def _trained(latents: PairedLatents, settings: FuseSettings) -> tuple[JointSpace, dict[str, float]]:
    validated: list[tuple[float, int]] = []

    def note(step: int, figures: Mapping[str, float]) -> None:
        validated.append((figures["mrr"], -step))

    began = time.perf_counter()
    # A line for each validation of each run would bury what matters, which warnings do.
    with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stderr(io.StringIO()):
        space = fuse(latents, settings, on_validation=note)
    seconds = time.perf_counter() - began
    for warning in warned:
        print(f"warning: {warning.message}", file=sys.stderr, flush=True)
    return space, {
        "items": int((latents.splits == "train").sum()),
        "batch_size": settings.batch_size,
        "steps": -min(step for _, step in validated),
        "chosen_step": -max(validated)[1],
        "seconds": round(seconds, 2),
    }


def _of_space(job: Job, space: JointSpace, latents: PairedLatents) -> Record:
    a, b = job.edge
    splits = {}
    for split in SPLITS:
        part = latents.split(split)
        measured = zip((f"{a} to {b}", f"{b} to {a}"), per_query(space, part, a, b, (1,)), strict=True)
        splits[split] = SplitFigures(len(part), {name: Direction(of.items, of.metrics) for name, of in measured})
    if isinstance(job.data.source, str):
        return Record(splits)
    return Record(splits, recovered=_told(recovery(SyntheticWorld(job.data.source), space.encode)))


def _of_world(world: SyntheticWorld, edge: tuple[str, str], *, ideal: bool) -> Record:
    """Measure what needs no training: the latents, compared as they are, or the factors that the encoders saw."""
    a, b = edge
    splits = {}
    for split in SPLITS:
        items = world.split(split)
        given = items.seen if ideal else items.latents
        directions = {
            f"{one} to {other}": _direction(
                *(_by_likelihood if ideal else _by_cosine)(given[one], given[other], world.settings.blur)
            )
            for one, other in ((a, b), (b, a))
        }
        splits[split] = SplitFigures(len(items.shared), directions)
    best = Recovered(1 / (1 + world.settings.blur**2), 0.0)
    return Record(splits, recovered=_told(dict.fromkeys(edge, best) if ideal else recovery(world)))


def _direction(queries: Tensor, gallery: Tensor) -> Direction:
    places = torch.arange(len(queries))
    result, _ = ranks(queries, gallery, torch.stack([places, places], dim=1))
    return Direction(places.numpy(), {"R@1": recall_at(1, result).numpy(), "MRR": reciprocal_ranks(result).numpy()})


def _by_cosine(queries: Tensor, gallery: Tensor, _blur: float) -> tuple[Tensor, Tensor]:
    """Return rows whose inner products are cosines; the shorter latents are filled up with zeros."""
    width = max(queries.shape[1], gallery.shape[1])
    first, second = (
        torch.nn.functional.normalize(pad(x, (0, width - x.shape[1])), dim=1) for x in (queries, gallery)
    )
    return first, second


def _by_likelihood(queries: Tensor, gallery: Tensor, blur: float) -> tuple[Tensor, Tensor]:
    """Return rows whose inner products order the gallery by the likelihood of the query.

    Both are the same factors of variance 1, blurred independently: a query given a gallery row is Gaussian around
    rho times the row, where rho = 1 / (1 + blur^2).  So no method can rank better by what the encoders see.
    """
    centres = gallery / (1 + blur**2)
    ones = torch.ones(len(queries), 1)
    return torch.cat([queries, ones], dim=1), torch.cat([centres, -centres.square().sum(1, keepdim=True) / 2], dim=1)


def _told(found: Mapping[str, Recovered]) -> dict[str, dict[str, float]]:
    return {name: {"shared": of.shared, "private": of.private} for name, of in found.items()}
