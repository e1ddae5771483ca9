"""Runs that have logged something, for what reads and draws it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

TRIANGLE = (("image", "text"), ("text", "audio"), ("image", "audio"))


def write_run(folder: Path, lines: list[dict[str, Any]]) -> Path:
    """Write lines as a run's metrics."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def logged(
    steps: int, edges: tuple[tuple[str, str], ...] = TRIANGLE[:1], every: int = 10, dataset: str = "", seed: int = 0
) -> list[dict[str, Any]]:
    """Return the lines of a run, with a validation every so many steps."""
    rng, prefix = np.random.default_rng(seed), f"{dataset}/" if dataset else ""
    lines: list[dict[str, Any]] = []
    for step in range(steps):
        line: dict[str, Any] = {"step": step, "loss": 0.0}
        for a, b in edges:
            line[f"loss/{a}-{b}"] = float(rng.uniform(1, 5))
            line[f"temperature/{a}-{b}"] = float(rng.uniform(0.01, 0.5))
            line["loss"] += line[f"loss/{a}-{b}"]
        line |= {"learning_rate": 1e-3 / (step + 1), "gradient_norm": float(rng.uniform(0.01, 5)), "lambda": 0.5}
        line |= {"items_per_second": float(rng.uniform(1e4, 1e5)), "memory": 1e9}
        if (step + 1) % every == 0:
            ways = [way for a, b in edges for way in (f"{a}-to-{b}", f"{b}-to-{a}")]
            line |= {f"{prefix}{way}/mrr": float(rng.uniform()) for way in ways}
            line |= {f"{prefix}{way}/R@1": float(rng.uniform()) for way in ways}
            line["mrr"] = float(np.mean([line[f"{prefix}{way}/mrr"] for way in ways]))
        lines.append(line)
    return lines
