"""What a run keeps so that it can go on with the numbers that an uninterrupted run has.

Everything random follows from (seed, step), so the state is small: weights, the optimiser's moments, the loss
scaler, the step, and what validation has seen so far.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusemix.errors import FusemixError, first_line
from fusemix.files import replacing
from fusemix.training.settings import FuseSettings

FORMAT_VERSION = 1
# What reading a file that is broken, or something else altogether, raises.
BROKEN = (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError)


@dataclass
class TrainingState:
    """Where a run stands; `best_step` is -1 before the first validation."""

    step: int = 0
    best_mrr: float = -1.0
    best_step: int = -1
    stale: int = 0
    finished: bool = False

    def accept(self, changed: Iterable[str], steps: int) -> None:
        """Go on with other settings.

        Args:
            changed: the differences, as `changes` tells them.
            steps: how many there are to be now.
        """
        self.stale, self.finished = 0, self.step >= steps
        if not all(change.startswith("fuse.") for change in changed):
            # What was measured on other data or other edges cannot be compared with what comes.
            self.best_mrr = -1.0


@dataclass(frozen=True)
class Checkpoint:
    """A run at a step.

    Attributes:
        state: counters.
        learner: weights, the optimiser's moments and the loss scaler, as `Learner.state` gives them.
        best: the weights that validated best.
        identity: what must be equal for the run to go on: settings and what it trains on, as `flat` gives them.
    """

    state: TrainingState
    learner: Mapping[str, Any]
    best: dict[str, Tensor]
    identity: Mapping[str, Any]


def save_state(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the training state, `training_state.pt` of the run, at once."""
    with replacing(path) as temporary:
        record = {
            "format_version": FORMAT_VERSION,
            "state": asdict(checkpoint.state),
            "learner": checkpoint.learner,
            "best": checkpoint.best,
            "identity": checkpoint.identity,
        }
        with temporary.open("wb") as file:
            try:
                torch.save(record, file)
            except RuntimeError as error:
                # A write that failed, on a full disk say, comes out of torch as an internal error.
                raise error.__context__ or error from None


def load_state(path: Path) -> Checkpoint | None:
    """Return what was saved last, its tensors on the CPU, or None where nothing was yet.

    Raises:
        FusemixError: where the file is broken or of a newer format.
    """
    if not path.is_file():
        return None
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
        version = record["format_version"]
        if version > FORMAT_VERSION:
            raise FusemixError(f"{path} has format {version}, newer than this fusemix reads: pip install -U fusemix")
        state = TrainingState(**record["state"])
        # A setting that the run's version did not have yet stood at its default.
        identity = {**flat({"fuse": asdict(FuseSettings())}), **record["identity"]}
        return Checkpoint(state, record["learner"], record["best"], identity)
    except BROKEN as error:
        raise FusemixError(
            f"{path} cannot be read ({first_line(error)}); start the run anew with --restart"
        ) from error


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves of nested mappings by their path: `fuse.adapter.depth`."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            leaves.update({f"{name}.{key}": leaf for key, leaf in flat(value).items()})
        else:
            leaves[name] = value
    return leaves


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return each difference between two identities: `fuse.seed was 0, now 3`."""
    return [
        f"{key} was {before.get(key)!r}, now {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to continue a run with other settings or data.

    Raises:
        FusemixError: naming each difference and the ways on.
    """
    if changed := changes(before, now):
        raise FusemixError(
            f"{folder} was started with other settings ({'; '.join(changed)}): train under another name with --run,"
            " start this one anew with --restart, or go on from its weights with --accept-changes"
        )


def load_weights(space: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Give a joint space the weights that a run saved.

    Args:
        space: the joint space.
        weights: its state dict, as it was saved.
        name: of what holds the weights, for the message.

    Raises:
        FusemixError: where a weight is missing, or of another shape.
    """
    has = {name: tuple(weight.shape) for name, weight in weights.items()}
    needs = {name: tuple(weight.shape) for name, weight in space.state_dict().items()}
    if unfit := changes(has, needs):
        more = f" and {len(unfit) - 1} more" if len(unfit) > 1 else ""
        raise FusemixError(
            f"{name} does not fit these adapters and edges ({unfit[0]}{more}): train under another name"
            " with --run, or start this one anew with --restart"
        )
    space.load_state_dict(weights)
