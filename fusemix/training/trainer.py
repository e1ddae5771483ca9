"""The loop of training: steps, validations, checkpoints, and what is told of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor

from fusemix.device import adapter_dtype
from fusemix.errors import FusemixError
from fusemix.free_memory import free_memory
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.objective import Objective
from fusemix.progress import Progress
from fusemix.training.checkpoint import Checkpoint, TrainingState, changes, load_weights, save_state
from fusemix.training.feeding import Feed, Feeder
from fusemix.training.learner import Learner, NotFiniteError
from fusemix.training.memory import TrainingShape, advice
from fusemix.training.monitor import Monitor
from fusemix.training.settings import FuseSettings
from fusemix.training.size import step_size
from fusemix.training.space import fresh_space
from fusemix.training.validation import Validation

STATE = "training_state.pt"
SHARE_OF_TIME = 0.1
"""Of training, that checkpoints may take besides those of a best step."""
REFIT = "refit"
"""Folder in a run's, of the refit's state and figures."""

Callback = Callable[[int, Mapping[str, float]], bool | None]


@dataclass(frozen=True)
class Job:
    """What a run is to do, and the folder it does it in."""

    datasets: Sequence[PairedLatents]
    settings: FuseSettings
    objective: Objective
    run: Path | None
    device: torch.device
    identity: Mapping[str, object]


class Trainer:
    """Trains a joint space on some items.

    Args:
        job: the run.
        train: the items.
        validation: says which step is best; without it, that is the last.
        selected: in a refit, where the run was when its step was selected.
    """

    def __init__(
        self,
        job: Job,
        train: Sequence[PairedLatents],
        validation: Validation | None,
        selected: TrainingState | None = None,
    ) -> None:
        self.settings, self.device, self.identity, self.run = job.settings, job.device, job.identity, job.run
        self.validation = validation
        self.last, self.steps_before = (selected.best_step, selected.step) if selected else (job.settings.steps, 0)
        self.name = REFIT if selected else "fuse"
        self.folder = job.run / REFIT if job.run and selected else job.run
        dtype = adapter_dtype(job.device, job.settings.precision)
        space = fresh_space(train, job.settings, job.objective)
        self.feeder = Feeder(train, job.settings, job.device)
        memory = self._predicted_memory(space, job.objective, dtype)
        self.learner = Learner(space.to(job.device), job.objective, job.settings, dtype, self.feeder.item_ids)
        self.told: list[object] = [self.feeder]
        if selected is None:
            self.told += [step_size(space, job.objective, job.settings), self.learner, memory]
        self.state = TrainingState()
        self.saved_at: int | None = None
        self.best: dict[str, Tensor] = {}
        self.changed: list[str] = []
        self._next_save = 0.0

    def train(self, on_step: Callback | None, on_validation: Callback | None) -> None:
        """Run the steps that are left, or as many as the callbacks allow."""
        state = self.state
        print(*self.told, sep="\n", file=sys.stderr, flush=True)
        with (
            Progress(self.last, self.name, "steps", state.step) as progress,
            Monitor(self.folder, state.step, self.device) as monitor,
        ):
            for feed in self.feeder.steps(state.step, self.last):
                figures = self._step(feed)
                figures.update(monitor.measured(len(feed.batch)))
                stop = bool(on_step and on_step(self.steps_before + state.step, figures))
                due = state.step % self.settings.validate_every == 0 or state.step == self.last
                if self.validation and (due or (stop and not self.best)):
                    figures.update(self._validate(self.validation))
                    monitor.warn_of(state.step, figures)
                    progress.note(_describe(state, figures))
                    stop |= bool(on_validation and on_validation(state.step, figures))
                elif state.step == self.last:
                    self._keep()
                    state.finished = True
                tau = self.learner.mean_temperature(figures)
                progress.advance(1, f"loss {figures['loss']:.3f}, tau {tau:.4f}")
                monitor.write(state.step - 1, figures, self.changed)
                self.changed = []
                if stop or state.finished or (due and self._worth_a_checkpoint()):
                    self._save()
                    monitor.flush()
                if stop or state.finished:
                    break
                monitor.begin()

    def resume(self, saved: Checkpoint) -> None:
        """Go on where a checkpoint stands."""
        self.state, self.best, self.saved_at = saved.state, saved.best, saved.state.step
        name = f"the checkpoint in {self.folder}"
        self.changed = changes(saved.identity, self.identity)
        if self.changed:
            told = f"goes on at step {self.state.step} with other settings: {'; '.join(self.changed)}"
            print(f"{self.folder} {told}", file=sys.stderr, flush=True)
            self.state.accept(self.changed, self.settings.steps)
            self._bring_back(saved.best, name)
        self.learner.restore(saved.learner, name)

    def best_space(self) -> JointSpace:
        """Return the best joint space, on the CPU; nothing can be trained after that."""
        self.learner.space.load_state_dict(self.best)
        return self.learner.space.cpu().eval()

    def _bring_back(self, best: Mapping[str, Tensor], name: str) -> None:
        """Undo what a refit with the settings of before may have left: its state, and its joint space."""
        load_weights(self.learner.space, best, name)
        if self.run is not None:
            (self.run / REFIT / STATE).unlink(missing_ok=True)
            self.learner.space.save(self.run / "joint_space")

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
            validation_rows=self.validation.most_rows if self.validation else 0,
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

    def _validate(self, validation: Validation) -> dict[str, float]:
        figures, state = validation(self.learner.space), self.state
        if figures["mrr"] > state.best_mrr:
            state.best_mrr = figures["mrr"]
            self._keep()
        else:
            state.stale += 1
        state.finished = state.step >= self.last or state.stale >= self.settings.patience
        return figures

    def _keep(self) -> None:
        """Take the weights of this step for the best."""
        self.state.best_step, self.state.stale = self.state.step, 0
        self.best = self.learner.weights()

    def _worth_a_checkpoint(self) -> bool:
        """Return whether this step is the best, or the time since the last checkpoint dwarfs what that took."""
        return self.state.best_step == self.state.step or monotonic() >= self._next_save

    def _save(self) -> None:
        if self.run is None or self.folder is None:
            return
        began = monotonic()
        # The joint space goes first: a kill between the two writes repeats steps, which give the same numbers.
        if self.state.best_step == self.state.step:
            self.learner.space.save(self.run / "joint_space")
        save_state(self.folder / STATE, Checkpoint(self.state, self.learner.state(), self.best, self.identity))
        self.saved_at = self.state.step
        ended = monotonic()
        self._next_save = ended + (ended - began) / SHARE_OF_TIME


def _describe(state: TrainingState, figures: Mapping[str, float]) -> str:
    recalls = ", ".join(
        f"{key.removesuffix('/R@1')} {100 * v:.1f}" for key, v in figures.items() if key.endswith("/R@1")
    )
    best = " (best so far)" if state.best_step == state.step else ""
    mrr = f"val MRR {figures['mrr']:.4f} +/- {figures['mrr_error']:.4f}"
    return f"step {state.step}: loss {figures['loss']:.3f}, {mrr}, val R@1 % {recalls}{best}"
