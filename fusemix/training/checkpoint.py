"""What a run keeps so that it can go on with the numbers that an uninterrupted run has.

Everything random follows from (seed, step), so the state is small: weights, the optimiser's moments, the loss
scaler, the step, and what validation has seen so far.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusemix.errors import FusemixError, first_line
from fusemix.files import replacing

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


def save_state(path: Path, state: TrainingState, tensors: dict[str, Any], settings: dict[str, Any]) -> None:
    """Replace the training state at once.

    Args:
        path: `training_state.pt` of the run.
        state: counters.
        tensors: the learner's state, and the weights that validated best.
        settings: what the run was started with, as `identity` gives it.
    """
    with replacing(path) as temporary:
        record = {"format_version": FORMAT_VERSION, "settings": settings, **asdict(state), **tensors}
        # Written by Python, because torch's own writer reports a full disk as an internal error.
        buffer = io.BytesIO()
        torch.save(record, buffer)
        temporary.write_bytes(buffer.getbuffer())


def load_state(path: Path) -> tuple[TrainingState, dict[str, Any], dict[str, Any]] | None:
    """Return the state, the tensors and the settings of a run, or None where there are none yet.

    Raises:
        FusemixError: where the file is broken or of a newer format.
    """
    if not path.is_file():
        return None
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
        version = record.pop("format_version")
        if version > FORMAT_VERSION:
            raise FusemixError(f"{path} has format {version}, newer than this fusemix reads: pip install -U fusemix")
        settings = record.pop("settings")
        state = TrainingState(**{key: record.pop(key) for key in asdict(TrainingState())})
    except BROKEN as error:
        raise FusemixError(
            f"{path} cannot be read ({first_line(error)}); start the run anew with --restart"
        ) from error
    return state, record, settings


def identity(settings: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return what must be equal for a run to go on: settings and what it trains on, flat (`fuse.adapter.depth`)."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}", inner)
        else:
            flat[prefix] = value

    for name, value in {"fuse": asdict(settings), **inputs}.items():
        walk(name, value)
    return flat


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


def load_weights(space: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Give a joint space the weights that a run saved.

    Raises:
        FusemixError: where a weight is missing, or of another shape.
    """
    has = {name: tuple(weight.shape) for name, weight in weights.items()}
    needs = {name: tuple(weight.shape) for name, weight in space.state_dict().items()}
    if unfit := changes(has, needs):
        more = f" and {len(unfit) - 1} more" if len(unfit) > 1 else ""
        raise FusemixError(
            f"the weights in {path} do not fit these adapters and edges ({unfit[0]}{more}): train under another name"
            " with --run, or start this one anew with --restart"
        )
    space.load_state_dict(weights)
