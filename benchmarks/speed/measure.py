"""Timing two ways in turn, and the memory of one in a process of its own."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

REPEATS = 5


@dataclass(frozen=True)
class Ratio:
    """Seconds of two ways, measured in turn in one process."""

    ours: list[float]
    plain: list[float]

    @property
    def value(self) -> float:
        """Median of ours over median of the plain way."""
        return median(self.ours) / median(self.plain)

    def __str__(self) -> str:
        return f"{self.value:.2f}x ({median(self.ours):.3f} s against {median(self.plain):.3f} s)"


def in_turn(ours: Callable[[], object], plain: Callable[[], object], repeats: int = REPEATS) -> Ratio:
    """Run both once unmeasured, then `repeats` times in turn."""
    ours(), plain()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, taken in zip((ours, plain), seconds, strict=True):
            gc.collect()
            began = time.perf_counter()
            run()
            taken.append(time.perf_counter() - began)
    return Ratio(*seconds)


def extra_memory(module: str, arguments: list[str]) -> int:
    """Return the bytes that `python -m MODULE ARGUMENTS` prints: its peak above what it held before the work."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout))


def peak_above(work: Callable[[], object]) -> int:
    """Return how many bytes the process's peak memory rises during `work`; for a fresh process.

    Raises:
        RuntimeError: where an earlier peak hides that of `work`.
    """
    before, earlier_peak = _status("VmRSS"), _status("VmHWM")
    if earlier_peak > before + (64 << 20):
        raise RuntimeError("this process held more memory before; measure in a fresh one")
    work()
    return _status("VmHWM") - before


def peak_memory() -> int:
    """Return the bytes that this process has held at its peak, all of it."""
    return _status("VmHWM")


def _status(field: str) -> int:
    # Not getrusage: its peak begins with that of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
