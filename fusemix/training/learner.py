"""One step of training: the loss of a batch, its gradients, and what the optimiser makes of them.

What a step tells is read from the device together, after the backward pass and before the optimiser: weights that a
loss or gradients that are not finite would spoil stay as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from fusemix.edge import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from fusemix.joint_space import JointSpace
from fusemix.objective import Objective
from fusemix.randomness import derive_seed
from fusemix.training import diagnosis
from fusemix.training.checkpoint import load_weights
from fusemix.training.feeding import Feed
from fusemix.training.gradients import Outcome, backpropagate
from fusemix.training.schedule import learning_rate, make_optimizer
from fusemix.training.settings import FuseSettings


class NotFiniteError(Exception):
    """A loss or gradients are not finite; the message says which, and where to look."""


class Learner:
    """A joint space and the optimiser that trains it.

    Args:
        space: the joint space, on the device where it trains.
        objective: the loss.
        settings: micro-batches, optimiser, schedule, seed.
        dtype: type in which the adapters compute.
        item_ids: names the items at positions, as `Feeder.item_ids` does.
    """

    def __init__(
        self,
        space: JointSpace,
        objective: Objective,
        settings: FuseSettings,
        dtype: torch.dtype,
        item_ids: Callable[[Tensor], list[str]],
    ) -> None:
        self.space, self.objective, self.settings, self.dtype = space, objective, settings, dtype
        self._item_ids = item_ids
        self.device = next(space.buffers()).device
        self.optimizer = make_optimizer(space, settings)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)
        self.skipped = 0

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "the CPU"
        slices = f", {self.settings.micro_batch} items at once" if self.settings.micro_batch else ""
        scaled = ", with a scaled loss" if self.scaler.is_enabled() else ""
        return f"adapters compute in {str(self.dtype).removeprefix('torch.')} on {name}{slices}{scaled}"

    def step(self, step: int, feed: Feed) -> dict[str, float]:
        """Take a step, counted from 0, and return its figures; temperatures and biases are those that the loss had.

        Raises:
            NotFiniteError: for a loss, or gradients that no lower scale of the loss mends.
        """
        rate = learning_rate(step, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        self.space.train()
        outcome = backpropagate(
            self.space,
            self.objective,
            feed.batch,
            self.scaler,
            seed=derive_seed(self.settings.seed, "dropout", step),
            dtype=self.dtype,
            micro_batch=self.settings.micro_batch,
        )
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([weight.grad for weight in self.space.parameters() if weight.grad is not None])
        figures = _read_together({"loss": outcome.loss, **self._scalars(outcome), "gradient_norm": norm})
        if not math.isfinite(figures["loss"]):
            raise NotFiniteError(
                f"the loss of step {step} is {figures['loss']} (temperature {self.mean_temperature(figures):.4g};"
                f" {diagnosis.of_batch(feed.batch, outcome.embeddings, self._item_ids)})"
            )
        self._update(step, figures["gradient_norm"], norm)
        return {**figures, "learning_rate": rate, "lambda": feed.lam, "skipped": self.skipped}

    def _update(self, step: int, norm: float, on_device: Tensor) -> None:
        if math.isfinite(norm):
            if self.settings.clip_norm is not None:
                clip_grads_with_norm_(self.space.parameters(), self.settings.clip_norm, on_device)
            self.scaler.step(self.optimizer)
        elif self.scaler.is_enabled() and self.scaler.get_scale() > 1:
            self.skipped += 1
        else:
            where = diagnosis.of_gradients(self.space)
            raise NotFiniteError(f"the gradients of step {step} are not finite, first that of {where}")
        self.scaler.update()
        self.space.clamp_temperatures(LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE)

    def _scalars(self, outcome: Outcome) -> dict[str, Tensor]:
        return {
            **{f"loss/{name}": loss for name, loss in outcome.edges.items()},
            **{f"temperature/{name}": (-scale).exp() for name, scale in self.space.log_scales.items()},
            **{f"bias/{name}": bias for name, bias in self.space.biases.items()},
        }

    def mean_temperature(self, figures: Mapping[str, float]) -> float:
        """Return the mean over the edges, learned temperatures taken from the figures of a step."""
        taus = [
            figures[f"temperature/{edge.temperature}"] if isinstance(edge.temperature, str) else edge.temperature
            for edge in self.objective.edges
        ]
        return sum(taus) / len(taus)

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the joint space's weights on the CPU."""
        return {key: value.detach().cpu().clone() for key, value in self.space.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs to go on with the same numbers."""
        return {
            "space": self.space.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped": self.skipped,
        }

    def restore(self, state: Mapping[str, Any], name: str) -> None:
        """Take weights, moments and the scale of the loss from a state; what the settings say is not in it.

        Raises:
            FusemixError: where the weights do not fit, by the name of what holds them.
        """
        load_weights(self.space, state["space"], name)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        # A state of another precision has no scale.
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.skipped = state["skipped"]


def _read_together(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the values of scalars on one device, which is waited for once."""
    values = torch.stack([tensor.detach().float() for tensor in tensors.values()]).tolist()
    return dict(zip(tensors, values, strict=True))
