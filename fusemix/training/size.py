"""What a step of training costs: parameters, and the FLOPs of the matrix products, to be shown before it starts.

A product of (B, n) and (n, m) takes 2 B n m FLOPs.  A weight of an adapter is used in three of them: forward, for its
own gradient, and for the gradient of its input.  Latents need no gradient, which spares only a matrix that lies
directly on them, as the linear adapter's does, and the map that narrows long latents; elsewhere a layer norm stands
between, and it is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusemix.adapters.adapter import Adapter
from fusemix.adapters.linear import LinearAdapter
from fusemix.adapters.residual import ResidualAdapter
from fusemix.joint_space import JointSpace
from fusemix.objective import Objective
from fusemix.training.settings import FuseSettings


@dataclass(frozen=True)
class StepSize:
    """Parameters of a joint space, and FLOPs of a step whose items have every modality.

    Attributes:
        parameters: all that are trained, temperatures and biases included.
        adapter_parameters: modality -> those of its adapter.
        adapter_flops: of all adapters, forward and backward.
        loss_flops: of all edges, forward and backward.
        forward_passes: how often an item goes forward through its adapters; 2 with micro-batches.
    """

    parameters: int
    adapter_parameters: Mapping[str, int]
    adapter_flops: int
    loss_flops: int
    forward_passes: int

    def __str__(self) -> str:
        each = ", ".join(f"{name} {_short(count)}" for name, count in self.adapter_parameters.items())
        twice = " (two forward passes, for micro-batches)" if self.forward_passes == 2 else ""
        return (
            f"{len(self.adapter_parameters)} adapters, {_short(self.parameters)} parameters ({each});"
            f" {_short(self.adapter_flops, ' ')}FLOP a step in the adapters{twice},"
            f" {_short(self.loss_flops, ' ')}FLOP in the loss"
        )


def step_size(space: JointSpace, objective: Objective, settings: FuseSettings) -> StepSize:
    """Count what a step costs where every item has every modality; where some lack one it costs less.

    Args:
        space: the joint space that is trained.
        objective: its edges; each costs 8 B^2 d, whichever its loss.
        settings: batch size B and micro-batches, whose forward pass is run twice.
    """
    pairs = settings.batch_size
    passes = 1 if settings.micro_batch is None or settings.micro_batch >= pairs else 2
    adapters = {name: space.adapter(name) for name in space.modalities}
    return StepSize(
        sum(parameter.numel() for parameter in space.parameters()),
        {name: sum(parameter.numel() for parameter in adapter.parameters()) for name, adapter in adapters.items()},
        pairs * sum(_flops_of_an_item(adapter, passes) for adapter in adapters.values()),
        8 * pairs**2 * space.dim * len(objective.edges),
        passes,
    )


def _flops_of_an_item(adapter: Adapter, forward_passes: int) -> int:
    weights = sum(parameter.numel() for parameter in adapter.parameters() if parameter.ndim == 2)
    return 2 * (weights * (forward_passes + 2) - _weights_on_latents(adapter))


def _weights_on_latents(adapter: Adapter) -> int:
    """Return how many weights the matrix has that lies directly on the latents, if there is one."""
    matrix = adapter.linear if isinstance(adapter, LinearAdapter) else None
    if isinstance(adapter, ResidualAdapter):
        matrix = adapter.narrow
    return 0 if matrix is None else matrix.weight.numel()


def _short(number: int, space: str = "") -> str:
    """Return a number with one decimal in thousands (K), millions (M), and so on."""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.1f}{space}{unit}"
    return f"{number}{space}"
