"""Training adapters on latents: FuseMix (CVPR 2024, arXiv 2312.10144) for any number of modalities.

A step's batch, lambda and dropout follow from (seed, step) alone, so a run that was killed goes on from its last
checkpoint with the numbers that it would have had.  Validation selects on the mean reciprocal rank of both
directions on the validation split; the test split is never read here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from fusemix.device import adapter_dtype, resolve_device
from fusemix.errors import FusemixError, nearest
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.objective import Objective
from fusemix.progress import Progress
from fusemix.training.checkpoint import Checkpoint, TrainingState, changes, check_same, flat, load_state, save_state
from fusemix.training.feeding import Feed, Feeder
from fusemix.training.learner import Learner, NotFiniteError
from fusemix.training.memory import TrainingShape, advice
from fusemix.training.monitor import Monitor
from fusemix.training.residency import free_memory
from fusemix.training.settings import FuseSettings
from fusemix.training.size import step_size
from fusemix.training.space import fresh_space
from fusemix.training.splits import check_pairs, items_of_split, with_modalities
from fusemix.training.validation import Validation

STATE = "training_state.pt"

Callback = Callable[[int, Mapping[str, float]], bool | None]


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
        on_step: called after each step with the number of steps done and its figures, as in `metrics.jsonl`.  Where
            it returns True, training stops: the run is saved, the same call goes on with it later, and the best joint
            space so far is returned, after a validation if there was none yet.
        on_validation: the same after each validation, with its figures too.
        accept_changes: go on with a run of other settings from the weights that it has, instead of refusing it.

    Returns:
        The joint space with the best mean reciprocal rank on the validation split, on the CPU.

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
    folder = Path(run) if run is not None else None
    mine = _identity(datasets, settings, objective)
    saved = load_state(folder / STATE) if folder else None
    if saved is not None and folder is not None:
        if not accept_changes:
            check_same(saved.identity, mine, folder)
        if saved.state.finished and not changes(saved.identity, mine):
            print(f"{folder}: complete, {saved.state.step} steps, best at {saved.state.best_step}", flush=True)
            return JointSpace.load(folder / "joint_space")
    trainer = _Trainer(datasets, settings, objective, folder, resolve_device(device), mine)
    if saved is not None:
        trainer.resume(saved)
    return trainer.train(on_step, on_validation)


class _Trainer:
    def __init__(
        self,
        datasets: Sequence[PairedLatents],
        settings: FuseSettings,
        objective: Objective,
        run: Path | None,
        device: torch.device,
        identity: Mapping[str, object],
    ) -> None:
        self.settings, self.run, self.device, self.identity = settings, run, device, identity
        dtype = adapter_dtype(device, settings.precision)
        train, val = items_of_split(datasets, "train"), items_of_split(datasets, "val")
        check_pairs(train, objective.edges)
        self.validation = Validation(val, objective.edges)
        space = fresh_space(train, settings, objective)
        self.feeder = Feeder(train, settings, device)
        self.memory = self._predicted_memory(space, objective, dtype)
        self.learner = Learner(space.to(device), objective, settings, dtype, self.feeder.item_ids)
        self.size = step_size(space, objective, settings)
        self.state = TrainingState()
        self.saved_at: int | None = None
        self.best: dict[str, Tensor] = {}
        self.changed: list[str] = []

    def train(self, on_step: Callback | None, on_validation: Callback | None) -> JointSpace:
        """Run the steps that are left, or as many as the callbacks allow, and return the best joint space."""
        state, steps = self.state, self.settings.steps
        print(f"{self.feeder}\n{self.size}\n{self.learner}\n{self.memory}", file=sys.stderr, flush=True)
        with (
            Progress(steps, "fuse", "steps", state.step) as progress,
            Monitor(self.run, state.step, self.device) as monitor,
        ):
            for feed in self.feeder.steps(state.step, steps):
                figures = self._step(feed)
                figures.update(monitor.measured(len(feed.batch)))
                stop = bool(on_step and on_step(state.step, figures))
                due = state.step % self.settings.validate_every == 0 or state.step == steps
                if due or (stop and not self.best):
                    figures.update(self._validate())
                    monitor.warn_of(state.step, figures)
                    progress.note(_describe(state, figures))
                    stop |= bool(on_validation and on_validation(state.step, figures))
                tau = self.learner.mean_temperature(figures)
                progress.advance(1, f"loss {figures['loss']:.3f}, tau {tau:.4f}")
                monitor.write(state.step - 1, figures, self.changed)
                self.changed = []
                if "mrr" in figures or stop:
                    self._save()
                    monitor.flush()
                if stop or state.finished:
                    break
                monitor.begin()
        return self._best_space()

    def resume(self, saved: Checkpoint) -> None:
        """Go on where a checkpoint stands."""
        self.state, self.best, self.saved_at = saved.state, saved.best, saved.state.step
        self.learner.restore(saved.learner, f"the checkpoint in {self.run}")
        self.changed = changes(saved.identity, self.identity)
        if self.changed:
            told = f"goes on at step {self.state.step} with other settings: {'; '.join(self.changed)}"
            print(f"{self.run} {told}", file=sys.stderr, flush=True)
            self.state.accept(self.changed, self.settings.steps)

    def _predicted_memory(self, space: JointSpace, objective: Objective, dtype: torch.dtype) -> str:
        """Say the peak of a step's memory, before the space goes to the device."""
        on_gpu = self.device.type == "cuda"
        shape = TrainingShape(
            self.settings,
            {name: space.adapter(name).input_dim for name in space.modalities},
            objective.edges,
            self.device.type,
            dtype,
            sent_ahead=self.feeder.sends_ahead,
            latents=torch.cuda.memory_allocated(self.device) if on_gpu else 0,
            validation_rows=self.validation.most_rows,
        )
        return advice(shape, free_memory(self.device), f"on {self.device}" if on_gpu else "in memory")

    def _step(self, feed: Feed) -> dict[str, float]:
        try:
            figures = self.learner.step(self.state.step, feed)
        except NotFiniteError as error:
            saved = self.saved_at
            kept = "no checkpoint was written" if saved is None else f"the checkpoint of step {saved} is kept"
            raise FusemixError(
                f"{error}; {kept}: lower fuse.learning_rate, with which --accept-changes goes on, or look for broken"
                " latents"
            ) from error
        self.state.step += 1
        return figures

    def _validate(self) -> dict[str, float]:
        figures, state = self.validation(self.learner.space), self.state
        if figures["mrr"] > state.best_mrr:
            state.best_mrr, state.best_step, state.stale = figures["mrr"], state.step, 0
            self.best = self.learner.weights()
        else:
            state.stale += 1
        state.finished = state.step >= self.settings.steps or state.stale >= self.settings.patience
        return figures

    def _save(self) -> None:
        if self.run is None:
            return
        # The joint space goes first: a kill between the two writes repeats steps, which give the same numbers.
        if self.state.best_step == self.state.step:
            self.learner.space.save(self.run / "joint_space")
        save_state(self.run / STATE, Checkpoint(self.state, self.learner.state(), self.best, self.identity))
        self.saved_at = self.state.step

    def _best_space(self) -> JointSpace:
        self.learner.space.load_state_dict(self.best)
        return self.learner.space.cpu().eval()


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


def _describe(state: TrainingState, figures: Mapping[str, float]) -> str:
    recalls = ", ".join(
        f"{key.removesuffix('/R@1')} {100 * v:.1f}" for key, v in figures.items() if key.endswith("/R@1")
    )
    best = " (best so far)" if state.best_step == state.step else ""
    return f"step {state.step}: loss {figures['loss']:.3f}, val MRR {figures['mrr']:.4f}, val R@1 % {recalls}{best}"
