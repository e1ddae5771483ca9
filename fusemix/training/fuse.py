"""Training adapters on latents: FuseMix (CVPR 2024, arXiv 2312.10144) for any number of modalities.

A step's batch, lambda and dropout follow from (seed, step) alone, so a run that was killed goes on from its last
checkpoint with the numbers that it would have had.  Validation selects on the mean reciprocal rank of both
directions on the validation split; the test split is never read here.

A refit follows where `fuse.refit` asks for it: the same training anew, on the items of train and val together, for as
many steps as validation has selected.  It has a state of its own in the run's folder, and only when it is complete
does its joint space take the place of the selected one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from fusemix.device import resolve_device
from fusemix.errors import FusemixError, nearest
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.objective import Objective
from fusemix.training.checkpoint import TrainingState, changes, check_same, flat, load_state
from fusemix.training.settings import FuseSettings
from fusemix.training.shares import share_out
from fusemix.training.splits import check_pairs, items_of_split, with_modalities
from fusemix.training.trainer import REFIT, STATE, Callback, Job, Trainer
from fusemix.training.validation import Validation


def fuse(
    latents: PairedLatents | Sequence[PairedLatents],
    settings: FuseSettings,
    *,
    objective: Objective | None = None,
    run: Path | str | None = None,
    device: str = "auto",
    on_step: Callback | None = None,
    on_validation: Callback | None = None,
    accept_changes: bool = False,
) -> JointSpace:
    """Train one adapter per modality and return the joint space that validated best.

    Args:
        latents: items with the splits `train` and `val`, of one dataset or of several, of which some may have only
            one of these splits or lack a modality; a modality that no edge names is left out.
        settings: edges, shape of the adapters, batches, optimiser, seed.
        objective: which pairs of modalities to align and how, instead of what the settings say of it.
        run: folder for checkpoints and `metrics.jsonl`; a run that is there already goes on, and a finished one is
            only loaded.  Without a folder nothing is written.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        on_step: called after each step with the number of steps done and its figures, as in `metrics.jsonl`; steps of
            a refit count on.  Where it returns True, training stops: the run is saved, the same call goes on with it
            later, and the best joint space so far is returned, after a validation if there was none yet.
        on_validation: the same after each validation, with its figures too.
        accept_changes: go on with a run of other settings from the weights that it has, instead of refusing it.

    Returns:
        The joint space with the best mean reciprocal rank on the validation split, on the CPU; or, with
        `settings.refit`, one of as many steps that has learned from that split too.

    Raises:
        FusemixError: for too few items, an empty split, an edge or an anchor without latents, edges without a pair, a
            precision that the device lacks, a run of other settings, a broken checkpoint, or a loss or gradients that
            are not finite.
    """
    datasets = [latents] if isinstance(latents, PairedLatents) else list(latents)
    names = list(dict.fromkeys(name for dataset in datasets for name in dataset.modalities))
    if len(names) < 2:
        raise FusemixError(f"fusing takes two modalities or more, not {sorted(names)}")
    objective = objective or Objective(settings.edges_between(names), settings.mask_equal_content)
    for name in objective.modalities:
        if name not in names:
            raise FusemixError(f"no latents of modality {name!r}: {nearest(name, names)}")
    for name in sorted(set(names) - set(objective.modalities)):
        print(f"{name}: no edge names it, so it gets no adapter", file=sys.stderr, flush=True)
    datasets = with_modalities(datasets, objective.modalities)
    if settings.refit:
        # What a refit refuses must not show only after the training before it.
        share_out(items_of_split(datasets, *settings.learned_splits), settings)
    identity = _identity(datasets, settings, objective)
    job = Job(datasets, settings, objective, Path(run) if run is not None else None, resolve_device(device), identity)
    state, space = _select(job, accept_changes, on_step, on_validation)
    return _refit(job, state, space, on_step) if settings.refit and state.finished else space


def _select(
    job: Job, accept_changes: bool, on_step: Callback | None, on_validation: Callback | None
) -> tuple[TrainingState, JointSpace]:
    """Train on the one split and select by the other."""
    saved = load_state(job.run / STATE) if job.run else None
    if saved is not None and job.run is not None:
        if not accept_changes:
            check_same(saved.identity, job.identity, job.run)
        if saved.state.finished and not changes(saved.identity, job.identity):
            print(f"{job.run}: complete, {saved.state.step} steps, best at {saved.state.best_step}", flush=True)
            return saved.state, JointSpace.load(job.run / "joint_space")
    train, val = items_of_split(job.datasets, "train"), items_of_split(job.datasets, "val")
    check_pairs(train, job.objective.edges)
    trainer = Trainer(job, train, Validation(val, job.objective.edges))
    if saved is not None:
        trainer.resume(saved)
    trainer.train(on_step, on_validation)
    return trainer.state, trainer.best_space()


def _refit(job: Job, selected: TrainingState, space: JointSpace, on_step: Callback | None) -> JointSpace:
    """Train anew on both splits, as many steps as were selected; without a whole refit, return the space as it is."""
    splits = " and ".join(job.settings.learned_splits)
    saved = load_state(job.run / REFIT / STATE) if job.run else None
    if saved is not None and saved.state.finished:
        print(f"{job.run}: refitted on {splits}, {saved.state.step} steps", flush=True)
        return space
    print(f"refit: anew on {splits}, {selected.best_step} steps as selected", file=sys.stderr, flush=True)
    trainer = Trainer(job, items_of_split(job.datasets, *job.settings.learned_splits), None, selected)
    if saved is not None:
        trainer.resume(saved)
    trainer.train(on_step, None)
    return trainer.best_space() if trainer.state.finished else space


def _identity(datasets: Sequence[PairedLatents], settings: FuseSettings, objective: Objective) -> dict[str, object]:
    encoders: dict[str, object] = {}
    for latents in datasets:
        for name, modality in latents.modalities.items():
            known = asdict(modality.spec) if modality.spec else {"dim": modality.values.shape[1]}
            encoders.setdefault(f"encoder of {name}", known)
    # The objective is told as a whole, whether the settings or the caller gave it, and where latents wait changes no
    # number.
    told = replace(settings, edges=(), anchor=None, mask_equal_content=True, residency="auto")
    dataset = ", ".join(part.dataset.fingerprint or part.dataset.name for part in datasets)
    return flat({"fuse": asdict(told), "dataset": dataset, "edges": str(objective), **encoders})
