"""What a run has logged so far, read from its `metrics.jsonl`, finished or still being written.

Lines of older runs lack fields, a killed run may have left half a line, and the last line of a running one may not be
complete: what cannot be read is left out and counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fusemix.errors import FusemixError

METRICS = "metrics.jsonl"
METRIC_NAMES = ("R@1", "mrr")


@dataclass(frozen=True)
class Curve:
    """A figure over the steps that have it, in their order."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Direction:
    """A direction of retrieval that a validation measured: queries of one modality, a gallery of the other."""

    dataset: str
    """Name of the dataset, empty where a run has only one."""
    source: str
    target: str

    @property
    def key(self) -> str:
        """What its figures begin with in `metrics.jsonl`."""
        return f"{self.dataset}/{self.source}-to-{self.target}".removeprefix("/")

    @property
    def edge(self) -> str:
        """Name of the edge that goes the same way."""
        return f"{self.source}-{self.target}"

    @property
    def reverse_edge(self) -> str:
        """Name of the edge that goes the other way."""
        return f"{self.target}-{self.source}"

    def __str__(self) -> str:
        return f"{self.source} → {self.target}"


@dataclass(frozen=True)
class History:
    """The curves of a run.

    Attributes:
        name: what to call it.
        curves: field of `metrics.jsonl` -> its curve.
        steps: steps that were logged.
        unreadable: lines that are no JSON object with a step, besides a last one that is not complete.
    """

    name: str
    curves: Mapping[str, Curve]
    steps: int
    unreadable: int = 0

    def curve(self, name: str) -> Curve:
        """Return a curve, without points where nothing was logged."""
        return self.curves.get(name, Curve([], []))

    def family(self, name: str) -> list[str]:
        """Return the fields that are called `name`, or `name/` and something."""
        return [one for one in self.curves if one == name or (one.startswith(f"{name}/") and name != "loss")]

    @property
    def chosen(self) -> tuple[int, float] | None:
        """The step of the best validation so far and its mean reciprocal rank: the first, where several are equal."""
        curve = self.curve("mrr")
        if not curve.steps:
            return None
        best = max(range(len(curve.steps)), key=curve.values.__getitem__)
        return curve.steps[best], curve.values[best]

    @property
    def edges(self) -> list[str]:
        """Names of the edges whose loss was logged."""
        return [name.removeprefix("loss/") for name in self.curves if name.startswith("loss/")]

    def directions(self) -> list[Direction]:
        """Return the directions that were validated, in the order of the first validation."""
        found = dict.fromkeys(direction for name in self.curves for direction in _directions(name, self.edges))
        return list(found)


@dataclass
class _Lines:
    """Figures by step; of a step that stands twice the later line counts."""

    figures: dict[int, dict[str, float]] = field(default_factory=dict)
    unreadable: int = 0


def read_history(run: Path, name: str | None = None) -> History | None:
    """Return what a run has logged; None where it has logged nothing yet.

    Args:
        run: its folder.
        name: what to call it; the folder's name if left out.

    Raises:
        FusemixError: where there is no such folder, no `metrics.jsonl`, or no line of it can be read.
    """
    path = run / METRICS
    if not run.is_dir():
        raise FusemixError(f"no run at {run}: name the folder of one, for example runs/emoji")
    if not path.is_file():
        raise FusemixError(f"{run} has no {METRICS}: it is no run, or has not begun to train")
    text = path.read_text(errors="replace")
    if not text.strip():
        return None
    lines = _read(text)
    if not lines.figures:
        raise FusemixError(f"{path}: none of its {lines.unreadable or 1} lines is a JSON object with a step")
    steps = sorted(lines.figures)
    names = dict.fromkeys(figure for step in steps for figure in lines.figures[step])
    curves = {}
    for figure in names:
        having = [step for step in steps if figure in lines.figures[step]]
        curves[figure] = Curve(having, [lines.figures[step][figure] for step in having])
    return History(name or run.resolve().name, curves, len(steps), lines.unreadable)


def _read(text: str) -> _Lines:
    lines = _Lines()
    complete, _, rest = text.rpartition("\n")
    for line in complete.splitlines():
        if not line.strip():
            continue
        record = _record(line)
        if record is None:
            lines.unreadable += 1
        else:
            lines.figures[record[0]] = record[1]
    # Whether the last line is still being written, only what it holds can tell.
    if (record := _record(rest)) is not None:
        lines.figures[record[0]] = record[1]
    return lines


def _record(line: str) -> tuple[int, dict[str, float]] | None:
    """Return the step and the finite figures of a line, or None where it is not a whole one."""
    try:
        figures = json.loads(line)
        if not isinstance(figures, dict) or not _is_number(step := figures.pop("step", None)):
            return None
        return int(step), {name: float(value) for name, value in figures.items() if _is_number(value)}
    except (ValueError, OverflowError, RecursionError):
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _directions(figure: str, edges: Iterable[str]) -> Iterator[Direction]:
    """Yield the direction that a figure of a validation belongs to, if it does."""
    key, _, metric = figure.rpartition("/")
    dataset, _, direction = key.rpartition("/")
    if metric not in METRIC_NAMES or "-to-" not in direction:
        return
    # A modality may have "-to-" in its name: an edge tells where to part it.
    parts = direction.split("-to-")
    ways = [("-to-".join(parts[:cut]), "-to-".join(parts[cut:])) for cut in range(1, len(parts))]
    known = [way for way in ways if "-".join(way) in edges or "-".join(way[::-1]) in edges]
    yield Direction(dataset, *(known or ways)[0])


def short_names(runs: Iterable[Path]) -> list[str]:
    """Return a name for each of several run folders: its last parts, as many as tell them apart."""
    parts = [run.resolve().parts for run in runs]
    longest = max((len(path) for path in parts), default=0)
    for depth in range(1, longest + 1):
        names = ["/".join(path[-depth:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    return ["/".join(path) for path in parts]
