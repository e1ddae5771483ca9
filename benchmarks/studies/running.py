"""Running studies: each run's figures go to a file of their own, so that a killed study goes on where it stopped.

A run is known by what decides its figures, so one that several studies share is done once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from fusemix.errors import FusemixError, first_line
from fusemix.files import replacing
from fusemix.objective import Objective
from fusemix.training.settings import FuseSettings
from fusemix.training.size import step_size
from fusemix.training.space import fresh_space

from .data import load_data
from .design import Job, Study, jobs_of, references_of
from .measuring import Record, fitting, measure

SCHEMA_VERSION = 1
# What two idle cores did in these studies, validation and all else included.
FLOPS_A_SECOND = 8e10
SECONDS_OF_A_REFERENCE = 2.0


def run(studies: Sequence[Study], root: Path) -> None:
    """Do the runs of the studies that are not there yet, and say before and between how long it will take.

    Args:
        studies: which.
        root: folder of `latents/`; the runs go to `studies/` beside it.

    Raises:
        FusemixError: where latents are missing.
    """
    jobs: dict[Path, tuple[Study, str, Job]] = {}
    for study in studies:
        for name, job in named_jobs(study):
            jobs.setdefault(path_of(job, root), (study, name, job))
    left = {path: of for path, of in jobs.items() if not path.is_file()}
    costs = _costs({path: job for path, (_, _, job) in left.items()}, root)
    print(
        f"{len(jobs) - len(left)} of {len(jobs)} runs are there; the others take about"
        f" {_minutes(sum(costs.values()))} on two idle cores",
        flush=True,
    )
    began, paid = time.monotonic(), 0.0
    for number, (path, (study, name, job)) in enumerate(left.items(), 1):
        record = measure(job, root)
        _write(path, job, root, record)
        paid += costs[path]
        ahead = (time.monotonic() - began) * (sum(costs.values()) - paid) / paid
        print(f"{number}/{len(left)} {study.name}, {name}: {_shown(record)}; {_minutes(ahead)} left", flush=True)


def named_jobs(study: Study) -> list[tuple[str, Job]]:
    """Return all jobs of a study, each with a name for messages."""
    trained = [
        (f"{level.name}, seed {seed}", job)
        for level in study.levels
        for seed, job in enumerate(jobs_of(study, level))
    ]
    return trained + [(str(name), job) for name, job in references_of(study).items()]


def read(job: Job, root: Path) -> Record | None:
    """Return what a job gave, or None where it is not done.

    Raises:
        FusemixError: where its file is broken.
    """
    path = path_of(job, root)
    if not path.is_file():
        return None
    try:
        return Record.from_dict(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise FusemixError(
            f"{path} cannot be read ({first_line(error)}): remove it and run the study again"
        ) from error


def path_of(job: Job, root: Path) -> Path:
    """Return where a job's figures lie: named by a hash of what decides them, and the seed."""
    text = json.dumps(_decisive(job, root), sort_keys=True)
    seed = f"-seed{job.method.seed}" if isinstance(job.method, FuseSettings) else ""
    return root / "studies" / job.data.name / f"{sha256(text.encode()).hexdigest()[:12]}{seed}.json"


def _decisive(job: Job, root: Path) -> dict[str, Any]:
    """Return all that a job's figures follow from, but the machine and the versions."""
    method = asdict(replace(job.method, seed=0)) if isinstance(job.method, FuseSettings) else job.method
    told: dict[str, Any] = {"data": asdict(job.data), "method": method, "edge": job.edge}
    if isinstance(job.data.source, str):
        latents = load_data(replace(job.data, share=1.0), root)
        told["dataset"] = latents.dataset.fingerprint
        told["encoders"] = {name: of.spec and asdict(of.spec) for name, of in latents.modalities.items()}
    return told


def _write(path: Path, job: Job, root: Path, record: Record) -> None:
    whole = {"schema_version": SCHEMA_VERSION, "job": _decisive(job, root), **record.to_dict()}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(whole) + "\n")


def seconds_of(job: Job, root: Path) -> float:
    """Return about how long a job takes on two idle cores, from its matrix products; fewer where it stops early."""
    if not isinstance(job.method, FuseSettings):
        return SECONDS_OF_A_REFERENCE
    latents = load_data(job.data, root)
    settings = fitting(job.method, latents)
    objective = Objective(settings.edges_between(latents.modalities), settings.mask_equal_content)
    size = step_size(fresh_space([latents], settings, objective), objective, settings)
    return settings.steps * (size.adapter_flops + size.loss_flops) / FLOPS_A_SECOND


def _costs(jobs: Mapping[Path, Job], root: Path) -> dict[Path, float]:
    # Seeds cost alike.
    of_kind: dict[str, float] = {}
    for path, job in jobs.items():
        kind = path.stem.partition("-")[0]
        if kind not in of_kind:
            of_kind[kind] = seconds_of(job, root)
    return {path: of_kind[path.stem.partition("-")[0]] for path in jobs}


def _shown(record: Record) -> str:
    figures = record.splits["val"].directions.values()
    mrr = sum(float(one.metrics["MRR"].mean()) for one in figures) / len(figures)
    took = f", {record.training['seconds']:.0f} s" if record.training else ""
    return f"validation MRR {mrr:.3f}{took}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
