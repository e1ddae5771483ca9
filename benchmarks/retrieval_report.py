"""What retrieval gave, as tables: one model's figures, and the comparison of methods."""

from __future__ import annotations

from collections.abc import Sequence

from .comparison import Comparison, MethodResult
from .report import CAVEAT, Report, difference, interval, label, number
from .retrieval_result import DirectionResult, RetrievalResult

_HIT = "R@k is hit@k: whether any of a query's right answers is among the first k."
_TRUE = "recall@k is true recall: the part of a query's right answers that is among the first k."
_FLOOR = "MedR is the whole part of the median of mid-ranks, as this protocol has it."
REFITTED = "Each method chose by validation, then learned anew from the items of train and val together."
_SHORT = ("MRR", "MedR")


def retrieval_report(result: RetrievalResult) -> Report:
    """Return one model's figures: a table for each pair of modalities, with a row for each metric."""
    directions = result.directions
    trained = [direction.trained for direction in directions]
    emergent = "emergent: between modalities that no edge aligned."
    of = " of what was trained" if any(trained) and not all(trained) else ""
    return Report(
        head_of(result),
        [_rows_of_pair(directions[first : first + 2]) for first in range(0, len(directions), 2)],
        [
            f"mean recall{of} % {interval('R@k', result.mean_recall)}, rsum {interval('rsum', result.rsum)}",
            "",
            *([] if all(trained) else [emergent]),
            _HIT,
            *([_TRUE] if any(direction.several for direction in directions) else []),
            *([_FLOOR] if result.protocol.median == "floor" else []),
            CAVEAT,
        ],
    )


def head_of(result: RetrievalResult) -> list[str]:
    """Return the lines that say what was measured, and what is to be warned of."""
    protocol = result.protocol
    folds = f", mean of {protocol.folds} folds" if protocol.folds > 1 else ""
    return [
        f"Retrieval on {result.dataset}, {result.split} split: {result.items} items, protocol {protocol.name}{folds}",
        *(f"warning: {warning}" for warning in result.warnings),
    ]


def _rows_of_pair(pair: Sequence[DirectionResult]) -> list[list[str]]:
    """Return the rows of a table: a column for each direction."""
    several = any(direction.several for direction in pair)
    metrics = [metric for metric in pair[0].metrics if several or not metric.startswith("recall@")]
    left_out = ["left out, no right answer", *(str(d.left_out) for d in pair)]
    repeated = ["repeated gallery rows", *(str(d.repeated) for d in pair)]
    return [
        ["" if pair[0].trained else "emergent", *(direction.name for direction in pair)],
        ["queries", *(str(d.queries) for d in pair)],
        *([left_out] if any(d.left_out for d in pair) else []),
        ["gallery rows", *(str(d.gallery) for d in pair)],
        *([repeated] if any(d.repeated for d in pair) else []),
        *([label(metric), *(interval(metric, d.metrics[metric]) for d in pair)] for metric in metrics),
        *_chance(pair),
        ["tie rate %", *(f"{100 * d.tie_rate:.1f}" for d in pair)],
    ]


def _chance(directions: Sequence[DirectionResult]) -> list[list[str]]:
    return [[f"chance {key} %", *(f"{100 * d.chance[key]:.2f}" for d in directions)] for key in directions[0].chance]


def comparison_report(comparison: Comparison) -> Report:
    """Return the figures of all methods: two tables for each direction, a column for each method."""
    methods = comparison.methods
    some = methods[0].result
    seeds = ", ".join(map(str, methods[0].seeds))
    tables = []
    for index in range(len(some.directions)):
        tables += _tables_of_direction(methods, index)
    counts = [
        ["", *(direction.name for direction in some.directions)],
        ["queries", *(str(direction.queries) for direction in some.directions)],
        ["gallery rows", *(str(direction.gallery) for direction in some.directions)],
        *_chance(some.directions),
    ]
    return Report(
        [*head_of(some), f"fusemix and no-mixup: mean of seeds {seeds}; ridge has no seed"],
        [*tables, counts],
        [
            CAVEAT,
            "Differences to ridge are paired by item; seeds: lowest to highest.",
            *([REFITTED] if comparison.refit else []),
        ],
    )


def _tables_of_direction(methods: Sequence[MethodResult], index: int) -> list[list[list[str]]]:
    direction = methods[0].result.directions[index]
    shown = [metric for metric in direction.metrics if metric.startswith("R@") or metric in _SHORT]
    of_methods = [method.result.directions[index].metrics for method in methods]
    rows = [[direction.name, *(method.name for method in methods)]]
    rows += [[label(metric), *(interval(metric, of[metric]) for of in of_methods)] for metric in shown]
    rows.append(["", *("" for _ in methods)])
    of_seeds = [method.of_seeds[direction.name] for method in methods]
    rows += [
        [f"{label(metric)}, seeds", *(_spread(metric, of[metric]) for of in of_seeds)]
        for metric in shown
        if metric in of_seeds[0]
    ]
    # Signs make the differences wider than the figures: in one table with them they would not fit.
    compared = [method for method in methods if direction.name in method.difference]
    differences = [["minus ridge", *(method.name for method in compared)]]
    for metric in shown:
        if metric in of_seeds[0]:
            cells = [difference(metric, method.difference[direction.name][metric]) for method in compared]
            differences.append([label(metric), *cells])
    return [rows, differences]


def _spread(metric: str, seeds: Sequence[float]) -> str:
    return "" if len(seeds) < 2 else f"{number(metric, min(seeds))} to {number(metric, max(seeds))}"
