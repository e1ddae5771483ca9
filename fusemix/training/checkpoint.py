"""What a run keeps so that it can go on with the numbers that an uninterrupted run has.

Everything random follows from (seed, step), so the state is small: weights, the optimiser's moments, the loss
scaler, the step, and what validation has seen so far.
"""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fusemix.errors import FusemixError, first_line
from fusemix.files import explaining_os_errors, replacing

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
    skipped: int = 0


def save_state(path: Path, state: TrainingState, tensors: dict[str, Any], settings: dict[str, Any]) -> None:
    """Replace the training state at once.

    Args:
        path: `training_state.pt` of the run.
        state: counters.
        tensors: state dicts of the joint space, the optimiser and the scaler, by name.
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


def check_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Refuse to continue a run with other settings or data.

    Raises:
        FusemixError: naming each difference and the ways on.
    """
    changed = [
        f"{key} was {before.get(key)!r}, now {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise FusemixError(
            f"{folder} was started with other settings ({'; '.join(changed)}): train under another name with --run,"
            " or start this one anew with --restart"
        )


class MetricsLog:
    """`metrics.jsonl`: one JSON object a line, in the order of steps.

    Args:
        path: the file.
        resume_at: step at which the run goes on; later lines, of steps that a killed run will do again, are dropped.
    """

    def __init__(self, path: Path, resume_at: int) -> None:
        self.path = path
        if path.is_file():
            lines = [line for line in path.read_text().splitlines() if _step_of(line) < resume_at]
            with replacing(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in lines))

    def write(self, **figures: Any) -> None:
        """Append a line."""
        with explaining_os_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(figures) + "\n")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")
