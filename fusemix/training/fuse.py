"""Training adapters on latents: FuseMix (CVPR 2024, arXiv 2312.10144) for any number of modalities.

A step's batch, lambda and dropout follow from (seed, step) alone, so a run that was killed goes on from its last
checkpoint with the numbers that it would have had.  Validation selects on the mean reciprocal rank of both
directions on the validation split; the test split is never read here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusemix.adapters.mlp import MLPAdapter
from fusemix.batch import BatchSource, LatentBatch, one_pair_a_row
from fusemix.device import adapter_dtype, resolve_device
from fusemix.edge import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.mixing import draw_lambda, halves, mixup
from fusemix.objective import Objective
from fusemix.progress import Progress
from fusemix.randomness import derive_seed
from fusemix.training.checkpoint import MetricsLog, TrainingState, check_same, identity, load_state, save_state
from fusemix.training.schedule import learning_rate, make_optimizer
from fusemix.training.settings import FuseSettings
from fusemix.training.statistics import standardisation
from fusemix.training.validation import Validation


def fuse(
    latents: PairedLatents,
    settings: FuseSettings,
    *,
    objective: Objective | None = None,
    run: Path | str | None = None,
    device: str = "auto",
    on_validation: Callable[[int, Mapping[str, float]], None] | None = None,
) -> JointSpace:
    """Train one adapter per modality and return the joint space that validated best.

    Args:
        latents: items with the splits `train` and `val`; a modality that no edge names is left out.
        settings: edges, shape of the adapters, batches, optimiser, seed.
        objective: which pairs of modalities to align and how, instead of what the settings say of it.
        run: folder for checkpoints and `metrics.jsonl`; a run that is there already goes on, and a finished one is
            only loaded.  Without a folder nothing is written.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        on_validation: called with the step and the figures of each validation.

    Returns:
        The joint space with the best mean reciprocal rank on the validation split, on the CPU.

    Raises:
        FusemixError: for too few items, an empty split, an edge or an anchor without latents, edges without a pair, a
            run of other settings, or a loss that is not finite.
    """
    if len(latents.modalities) < 2:
        raise FusemixError(f"fusing takes two modalities or more, not {sorted(latents.modalities)}")
    objective = objective or Objective(settings.edges_between(latents.modalities), settings.mask_equal_content)
    trainer = _Trainer(
        _only(latents, objective.modalities),
        settings,
        objective,
        Path(run) if run is not None else None,
        resolve_device(device),
    )
    return trainer.train(on_validation)


class _Trainer:
    def __init__(
        self,
        latents: PairedLatents,
        settings: FuseSettings,
        objective: Objective,
        run: Path | None,
        device: torch.device,
    ) -> None:
        self.settings, self.objective, self.run, self.device = settings, objective, run, device
        train = latents.split("train")
        _check_pairs(train, objective)
        items_per_step = settings.batch_size * (2 if settings.mixup == "halves" else 1)
        drawn = one_pair_a_row(train) if settings.captions == "all" else train
        self.batches = BatchSource(drawn, items_per_step, settings.seed)
        self.validation = Validation(latents.split("val"), objective.edges)
        self.space = _fresh_space(train, settings, objective).to(device)
        self.optimizer = make_optimizer(self.space, settings)
        self.dtype = adapter_dtype(device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.state = TrainingState()
        self.best: dict[str, Tensor] = {}
        self.identity = identity(
            # The objective is told as a whole, whether the settings or the caller gave it.
            replace(settings, edges=(), anchor=None, mask_equal_content=True),
            {
                "dataset": latents.dataset.fingerprint or latents.dataset.name,
                "edges": str(objective),
                **{f"encoder of {m}": asdict(v.spec) if v.spec else "" for m, v in latents.modalities.items()},
            },
        )
        self._resume()

    def train(self, on_validation: Callable[[int, Mapping[str, float]], None] | None) -> JointSpace:
        """Run the steps that are left and return the best joint space."""
        if self.state.finished:
            print(f"{self.run}: complete, {self.state.step} steps, best at {self.state.best_step}", flush=True)
            return self._best_space()
        settings, state = self.settings, self.state
        log = MetricsLog(self.run / "metrics.jsonl", state.step) if self.run else None
        with Progress(settings.steps, "fuse", "steps", state.step) as progress:
            while not state.finished:
                step = state.step
                figures = self._step(step)
                state.step += 1
                if state.step % settings.validate_every == 0 or state.step == settings.steps:
                    validated = self._validate()
                    figures.update(validated)
                    if on_validation is not None:
                        on_validation(state.step, validated)
                    progress.note(_describe(state, figures))
                progress.advance(1, f"loss {figures['loss']:.3f}, tau {self._mean_temperature():.4f}")
                if log is not None:
                    log.write(step=step, **figures)
                if "mrr" in figures:
                    self._save()
        return self._best_space()

    def _best_space(self) -> JointSpace:
        self.space.load_state_dict(self.best)
        return self.space.cpu().eval()

    def _step(self, step: int) -> dict[str, float]:
        rate = learning_rate(step, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch, lam = self._batch(step)
        self.space.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.settings.seed, "dropout", step))
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                embeddings = {name: self.space(name, batch.values[name]) for name in self.space.modalities}
            loss, edges = self.objective(embeddings, batch, self.space)
        value = float(loss.detach())
        if not math.isfinite(value):
            self._stop_at_bad_loss(step, value, batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.state.skipped += int(self.scaler.get_scale() < before)
        self.space.clamp_temperatures(LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE)
        figures = {"loss": value, "learning_rate": rate, "lambda": lam}
        figures.update({f"loss/{name}": float(part.detach()) for name, part in edges.items()})
        figures.update({f"temperature/{name}": self.space.temperature(name) for name in self.space.log_scales})
        figures.update({f"bias/{name}": float(bias.detach()) for name, bias in self.space.biases.items()})
        return figures

    def _batch(self, step: int) -> tuple[LatentBatch, float]:
        batch = self.batches.batch(step).to(self.device)
        if self.settings.mixup == "none":
            return batch, 1.0
        lam = draw_lambda(self.settings.mixup_alpha, derive_seed(self.settings.seed, "lambda", step))
        first, second = halves(batch)
        return mixup(first, second, lam), lam

    def _validate(self) -> dict[str, float]:
        figures = self.validation(self.space)
        state = self.state
        if figures["mrr"] > state.best_mrr:
            state.best_mrr, state.best_step, state.stale = figures["mrr"], state.step, 0
            self.best = {key: value.detach().cpu().clone() for key, value in self.space.state_dict().items()}
        else:
            state.stale += 1
        state.finished = state.step >= self.settings.steps or state.stale >= self.settings.patience
        return figures

    def _save(self) -> None:
        if self.run is None:
            return
        # The joint space goes first: a kill between the two writes repeats steps, which give the same numbers.
        if self.state.best_step == self.state.step:
            self.space.save(self.run / "joint_space")
        tensors = {
            "space": self.space.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        save_state(self.run / "training_state.pt", self.state, tensors, self.identity)

    def _resume(self) -> None:
        saved = load_state(self.run / "training_state.pt") if self.run else None
        if saved is None or self.run is None:
            return
        self.state, tensors, before = saved
        # A setting that the run's version did not have yet stood at its default.
        check_same({**identity(FuseSettings(), {}), **before}, self.identity, self.run)
        self.space.load_state_dict(tensors["space"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        self.scaler.load_state_dict(tensors["scaler"])
        self.best = tensors["best"]

    def _mean_temperature(self) -> float:
        taus = [self.objective.temperature(edge, self.space) for edge in self.objective.edges]
        return sum(taus) / len(taus)

    def _stop_at_bad_loss(self, step: int, loss: float, batch: LatentBatch) -> None:
        norms = {name: f"{float(v.norm(dim=1).max()):.3g}" for name, v in batch.values.items()}
        kept = f"the checkpoint of step {self.state.best_step} is kept" if self.best else "no checkpoint was written"
        raise FusemixError(
            f"the loss of step {step} is {loss} (temperature {self._mean_temperature():.4g}, largest latent"
            f" norms {norms}); {kept}: lower fuse.learning_rate or look for broken latents"
        )


def _fresh_space(train: PairedLatents, settings: FuseSettings, objective: Objective) -> JointSpace:
    adapters = {}
    with torch.random.fork_rng(devices=[]):
        for name, modality in sorted(train.modalities.items()):
            torch.manual_seed(derive_seed(settings.seed, "weights", name))
            shape = settings.adapter
            dim = modality.values.shape[1]
            adapter = MLPAdapter(dim, settings.joint_dim, shape.depth, shape.expansion, shape.dropout)
            adapter.standardise_by(*standardisation([modality]))
            adapters[name] = adapter
    specs = {name: modality.spec for name, modality in train.modalities.items()}
    temperatures = dict.fromkeys(objective.temperatures, settings.temperature)
    return JointSpace(adapters, temperatures, specs, dict.fromkeys(objective.biases, settings.bias))


def _only(latents: PairedLatents, modalities: list[str]) -> PairedLatents:
    """Leave out the modalities that no edge names: their adapters would stay as they were drawn."""
    chosen = {name: latents[name] for name in modalities}
    for name in sorted(latents.modalities.keys() - chosen.keys()):
        print(f"{name}: no edge names it, so it gets no adapter", file=sys.stderr, flush=True)
    return replace(latents, modalities={name: latents[name] for name in latents.modalities if name in chosen})


def _check_pairs(train: PairedLatents, objective: Objective) -> None:
    if not any(bool((train[e.a].counts.bool() & train[e.b].counts.bool()).any()) for e in objective.edges):
        names = ", ".join(edge.name for edge in objective.edges)
        raise FusemixError(
            f"no item of the training split has both modalities of an edge ({names}): nothing to train on; look"
            " whether the modalities name their items alike"
        )


def _describe(state: TrainingState, figures: Mapping[str, Any]) -> str:
    recalls = ", ".join(
        f"{key.removesuffix('/R@1')} {100 * v:.1f}" for key, v in figures.items() if key.endswith("/R@1")
    )
    best = " (best so far)" if state.best_step == state.step else ""
    return f"step {state.step}: loss {figures['loss']:.3f}, val MRR {figures['mrr']:.4f}, val R@1 % {recalls}{best}"
