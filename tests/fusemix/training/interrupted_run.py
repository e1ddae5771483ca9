"""Trains a small world over and over, each time killed at a random moment, until the run is finished.

Usage: python -m tests.fusemix.training.interrupted_run CASE FOLDER KILLS

Every attempt is a process of its own that ends itself by SIGKILL before a random one of its function calls, half of
the time one that writes a file.  Counting calls instead of seconds makes the moments the same on every machine.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import fusemix.files
from fusemix.adapters.settings import AdapterSettings
from fusemix.latents.paired import PairedLatents
from fusemix.training.fuse import fuse
from fusemix.training.settings import FuseSettings
from tests.fusemix.synthetic import world
from tests.fusemix.training.short_runs import THREE

SETTINGS = FuseSettings(
    steps=24,
    batch_size=24,
    joint_dim=8,
    adapter=AdapterSettings(expansion=1, dropout=0.3),
    warmup_steps=4,
    learning_rate=3e-3,
    validate_every=4,
)
CASES = {
    "halves": SETTINGS,
    "slices": replace(SETTINGS, micro_batch=7, mixup="shift", anchor="text", clip_norm=0.5),
    "refit": replace(SETTINGS, learning_rate=0.2, patience=2, refit=True),
    "captions": replace(SETTINGS, captions="all", mixup_lambda="pair", micro_batch=24, precision="bfloat16"),
}


def latents_of(case: str) -> PairedLatents:
    """Return the world of a case: `slices` has three modalities, of which a third of the items lack one."""
    return world(100, THREE, missing=0.3) if case == "slices" else world(100)


class CallCounter:
    """Counts function calls and writes of files, and kills the process when one of the counts is reached.

    Args:
        limits: `call` or `write` -> the count that is the last.
    """

    def __init__(self, limits: dict[str, int]) -> None:
        self.counts = {"call": 0, "write": 0}
        self.limits = limits

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        self._count("call")
        if frame.f_code.co_filename == fusemix.files.__file__:
            self._count("write")

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] == self.limits.get(kind):
            os.kill(os.getpid(), signal.SIGKILL)


def attempt(case: str, run: Path, limits: dict[str, int], counts: Path) -> int:
    """Train in a child process and return how it ended, as `subprocess` does."""
    child = os.fork()
    if child == 0:
        counter = CallCounter(limits)
        sys.setprofile(counter)
        fuse(latents_of(case), CASES[case], run=run, device="cpu")
        sys.setprofile(None)
        counts.write_text(f"{counter.counts['call']} {counter.counts['write']}")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(case: str, folder: Path, kills: int) -> None:
    """Make `folder/whole` without interruption and `folder/killed` with `kills` of them."""
    # One thread, so that forking is safe; one short run, so that the children do not count torch's late imports.
    torch.set_num_threads(1)
    fuse(latents_of(case), replace(CASES[case], steps=1), run=folder / "short", device="cpu")
    counts = folder / "counts"
    if attempt(case, folder / "whole", {}, counts) != 0:
        raise SystemExit("the uninterrupted run failed")
    calls, writes = (int(number) for number in counts.read_text().split())
    rng = random.Random(0)
    for number in range(kills):
        limits = {"call": rng.randrange(calls // 2)} if number % 2 else {"write": rng.randrange(1, writes // 2)}
        ended = attempt(case, folder / "killed", limits, counts)
        if ended not in (0, -signal.SIGKILL):
            raise SystemExit(f"attempt {number} ended with {ended}")
        print("finished" if ended == 0 else "killed", flush=True)
    if attempt(case, folder / "killed", {}, counts) != 0:
        raise SystemExit("the last attempt failed")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
