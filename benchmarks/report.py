"""Results as tables that fit a narrow terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusemix.files import replacing

from .bootstrap import Interval
from .comparison import Comparison, MethodResult
from .retrieval import DirectionResult, RetrievalResult

SCHEMA_VERSION = 1
_CAVEAT = "95% intervals by bootstrap over items, given this gallery and this model."


def write_json(path: Path, benchmark: str, result: Mapping[str, object], context: Mapping[str, object]) -> None:
    """Write a result with its schema version and what it was obtained with.

    Args:
        path: `results/<benchmark>/<run>.json`.
        benchmark: name of the benchmark.
        result: what was measured.
        context: recipe, versions, machine.
    """
    record = {"schema_version": SCHEMA_VERSION, "benchmark": benchmark, **context, **result}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")


def retrieval_table(result: RetrievalResult) -> str:
    """Return one model's figures: a block for each pair of modalities, with a row for each metric."""
    directions = result.directions
    lines = [f"Retrieval on {result.dataset}, {result.split} split: {result.items} items, protocol {result.protocol}"]
    for first in range(0, len(directions), 2):
        lines += ["", *_aligned(_rows_of_pair(directions[first : first + 2]))]
    emergent = any(not direction.trained for direction in directions)
    of = " of what was trained" if emergent and any(direction.trained for direction in directions) else ""
    lines += ["", f"mean recall{of} % {_interval('R', result.mean_recall)}", ""]
    if emergent:
        lines.append("emergent: between modalities that no edge aligned.")
    return "\n".join([*lines, "R@k is hit@k: whether any of a query's right answers is among the first k.", _CAVEAT])


def _rows_of_pair(pair: Sequence[DirectionResult]) -> list[list[str]]:
    """Return the rows of a block: a column for each direction."""
    metrics = pair[0].metrics
    return [
        ["" if pair[0].trained else "emergent", *(direction.name for direction in pair)],
        ["queries", *(str(d.queries) for d in pair)],
        ["gallery rows", *(str(d.gallery) for d in pair)],
        *([_label(metric), *(_interval(metric, d.metrics[metric]) for d in pair)] for metric in metrics),
        *_chance_rows(pair),
        ["tie rate %", *(f"{100 * d.tie_rate:.1f}" for d in pair)],
    ]


def comparison_table(comparison: Comparison) -> str:
    """Return the figures of all methods: a block for each direction, a column for each method."""
    methods = comparison.methods
    some = methods[0].result
    lines = [
        f"Retrieval on {some.dataset}, {some.split} split: {some.items} items, protocol {some.protocol}",
        "fusemix and no-mixup: mean of seeds " + ", ".join(map(str, methods[0].seeds)) + "; ridge has no seed",
    ]
    for index, direction in enumerate(some.directions):
        rows = [[direction.name, *(method.name for method in methods)]]
        for metric in direction.metrics:
            cells = [_interval(metric, m.result.directions[index].metrics[metric]) for m in methods]
            rows.append([_label(metric), *cells])
        rows.append(["", *("" for _ in methods)])
        for metric in _of_seeds(methods[0], direction.name):
            spread = [_spread(metric, _of_seeds(m, direction.name)[metric]) for m in methods]
            rows.append([f"{_label(metric)}, seeds", *spread])
        # Signs make the differences wider than the figures: in one table with them they would not fit.
        compared = [method for method in methods if direction.name in method.difference]
        differences = [["minus ridge", *(method.name for method in compared)]]
        for metric in methods[0].difference[direction.name]:
            cells = [_difference(method.difference[direction.name][metric], metric) for method in compared]
            differences.append([_label(metric), *cells])
        chance = ", ".join(f"{key} {100 * value:.2f}" for key, value in direction.chance.items())
        counts = f"{direction.queries} queries, {direction.gallery} gallery rows, chance % {chance}"
        lines.extend(["", *_aligned(rows), "", *_aligned(differences), "", counts])
    lines.extend(["", _CAVEAT, "Differences to ridge are paired by item; seeds: lowest to highest."])
    return "\n".join(lines)


def _of_seeds(method: MethodResult, direction: str) -> Mapping[str, Sequence[float]]:
    return method.of_seeds[direction]


def _chance_rows(directions: Sequence[DirectionResult]) -> list[list[str]]:
    return [[f"chance {key} %", *(f"{100 * d.chance[key]:.2f}" for d in directions)] for key in directions[0].chance]


def _label(metric: str) -> str:
    return f"{metric} %" if metric.startswith("R@") else metric


def _number(metric: str, value: float) -> str:
    if metric.startswith("R"):
        return f"{100 * value:.1f}"
    if metric == "MRR":
        return f"{value:.3f}"
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _interval(metric: str, interval: Interval) -> str:
    low, high = _number(metric, interval.low), _number(metric, interval.high)
    return f"{_number(metric, interval.value)} [{low}, {high}]"


def _spread(metric: str, seeds: Sequence[float]) -> str:
    return "" if len(seeds) < 2 else f"{_number(metric, min(seeds))} to {_number(metric, max(seeds))}"


def _difference(interval: Interval, metric: str) -> str:
    signed: list[Any] = [_number(metric, v) for v in (interval.value, interval.low, interval.high)]
    value, low, high = (text if text.startswith("-") else f"+{text}" for text in signed)
    return f"{value} [{low}, {high}]"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
