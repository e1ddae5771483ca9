"""Short runs on a small world, and what they left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fusemix.adapters.settings import AdapterSettings
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.training.fuse import fuse
from fusemix.training.settings import FuseSettings

SETTINGS = FuseSettings(
    steps=100,
    batch_size=64,
    joint_dim=16,
    adapter=AdapterSettings(expansion=2, dropout=0.2),
    learning_rate=3e-3,
    warmup_steps=10,
    validate_every=20,
)
SHORT = replace(SETTINGS, steps=6, validate_every=2, warmup_steps=2, batch_size=24)
THREE = {"image": 24, "text": 16, "audio": 12}
MEASURED = ("items_per_second", "memory_gb")


class Interrupted(Exception):
    """Ends a run from outside."""


class Recorder:
    """Keeps what a callback is told, and interrupts or stops the run where it is asked to."""

    def __init__(self, stop_at: int = -1, interrupt_at: int = -1) -> None:
        self.stop_at, self.interrupt_at = stop_at, interrupt_at
        self.steps: list[int] = []
        self.figures: list[Mapping[str, float]] = []

    def __call__(self, step: int, figures: Mapping[str, float]) -> bool:
        self.steps.append(step)
        self.figures.append(dict(figures))
        if step == self.interrupt_at:
            raise Interrupted
        return step == self.stop_at

    @property
    def mrr(self) -> list[float]:
        return [figures["mrr"] for figures in self.figures]


def train(
    latents: PairedLatents | Sequence[PairedLatents], settings: FuseSettings = SHORT, **options: Any
) -> JointSpace:
    return fuse(latents, settings, device="cpu", **options)


def metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`, without what depends on how busy the machine is."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]


def same(a: JointSpace, b: JointSpace) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
