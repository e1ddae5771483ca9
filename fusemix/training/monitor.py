"""What a run tells of itself: `metrics.jsonl` always, TensorBoard where it is installed, and warnings."""

from __future__ import annotations

import json
import math
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from fusemix.edge import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from fusemix.files import explaining_os_errors, replacing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# Embeddings of items that have nothing in common lie at a mean cosine near 0, those of an untrained space below 0.9.
COLLAPSED = 0.98
AT_CLAMP = 1.001


class Monitor:
    """Writes the figures of each step, with how fast it was and the memory it took.

    Args:
        run: folder of the run; nothing is written without one.
        resume_at: step at which the run goes on.
        device: where it trains.
    """

    def __init__(self, run: Path | None, resume_at: int, device: torch.device) -> None:
        self.device = device
        self._log = MetricsLog(run / "metrics.jsonl", resume_at) if run else None
        self._board = _tensorboard(run / "tensorboard", resume_at) if run else None
        self._warned: set[str] = set()
        self._began = time.perf_counter()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()

    def begin(self) -> None:
        """Start the clock of a step."""
        self._began = time.perf_counter()

    def measured(self, items: int) -> dict[str, float]:
        """Return `items_per_second` since `begin` and `memory_gb`, the peak so far, of the GPU or of the process.

        Args:
            items: how many the step trained on.
        """
        seconds = time.perf_counter() - self._began
        return {"items_per_second": items / seconds, **_memory(self.device)}

    def write(self, step: int, figures: Mapping[str, float], changes: Sequence[str] = ()) -> None:
        """Add a line to `metrics.jsonl`, and its figures to TensorBoard; those that are not finite are left out.

        Args:
            step: the step, counted from 0.
            figures: name -> value.
            changes: how the settings differ from those of the steps before; only `metrics.jsonl` tells.
        """
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        if self._log is not None:
            self._log.write(step=step, **finite, **({"changes": list(changes)} if changes else {}))
        if self._board is not None:
            for name, value in finite.items():
                self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Bring TensorBoard up to date with a checkpoint, so that no figures are missing before it."""
        if self._board is not None:
            self._board.flush()

    def warn_of(self, step: int, figures: Mapping[str, float]) -> None:
        """Warn, once of each, of embeddings that collapse and of temperatures that sit at their bound.

        Args:
            step: steps done.
            figures: of a step with a validation.
        """
        for name, value in figures.items():
            kind, _, of = name.rpartition("/")
            if kind.endswith("mean_cosine") and value > COLLAPSED:
                self._warn(
                    name,
                    f"step {step}: the {of} embeddings collapse, two of the validation split have a cosine of"
                    f" {value:.3f} on average: lower fuse.learning_rate, or look whether the latents differ at all",
                )
            if kind == "temperature" and not LOWEST_TEMPERATURE * AT_CLAMP < value < HIGHEST_TEMPERATURE / AT_CLAMP:
                self._warn(
                    name,
                    f"step {step}: the temperature {of!r} is {value:.4g}, at a bound of [{LOWEST_TEMPERATURE},"
                    f" {HIGHEST_TEMPERATURE}]: lower fuse.learning_rate, or fix the temperature",
                )

    def _warn(self, cause: str, message: str) -> None:
        if cause not in self._warned:
            self._warned.add(cause)
            warnings.warn(message, RuntimeWarning, stacklevel=2)


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


def _tensorboard(folder: Path, resume_at: int) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    with explaining_os_errors(folder):
        # What an earlier run wrote of steps that will be done again is not shown.
        return SummaryWriter(folder, purge_step=resume_at)


def _memory(device: torch.device) -> dict[str, float]:
    if device.type == "cuda":
        return {"memory_gb": torch.cuda.max_memory_allocated(device) / 1e9}
    # Not getrusage: its peak begins with that of the process that started this one.
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.is_file() else None
    return {"memory_gb": int(found[1]) * 1024 / 1e9} if found else {}


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")
