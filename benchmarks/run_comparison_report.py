"""The comparison of runs as tables: differences with intervals and p values, and the queries that changed most."""

from __future__ import annotations

from collections.abc import Sequence

from .labels import shortened
from .report import Report, difference, label, number
from .run_comparison import ChangedQuery, DirectionDifference, PairedRuns, RunComparison

LONGEST_SOURCE = 56
_FOOT = (
    "B - A: 95% intervals by bootstrap over whole items, the same for both runs.  p: by permutation of whole items,"
    " two-sided.  Holm: p adjusted for all {tests} tests of this comparison; below 0.05 the difference is more than"
    " chance, for these items and these trained models.  MedR is not tested."
)


def run_comparison_report(comparison: RunComparison, changed: int = 5) -> Report:
    """Return three tables for each direction of each pair of runs: figures, queries, and those that changed most.

    Args:
        comparison: of two runs or more.
        changed: how many queries are shown of those that gained most, and of those that lost most.
    """
    head = [
        f"{comparison.dataset}, {comparison.split} split: {comparison.items} items, protocol {comparison.protocol}",
        *(f"warning: {line}" for line in comparison.warnings),
    ]
    tables: list[list[list[str]]] = []
    for pair in comparison.pairs:
        tables.append(_names(pair))
        for direction in pair.directions:
            tables += [_figures(direction), _moved(direction)]
            if direction.seeds_of_a or direction.seeds_of_b:
                tables.append(_seeds(direction))
            for title, queries in (("gained most", direction.gained), ("lost most", direction.lost)):
                if queries and changed:
                    tables.append(_changed(f"{direction.name}: {title}", queries[:changed]))
    return Report(head, tables, [_FOOT.format(tests=comparison.tests)])


def _names(pair: PairedRuns) -> list[list[str]]:
    return [["A", shortened(pair.a, LONGEST_SOURCE)], ["B", shortened(pair.b, LONGEST_SOURCE)]]


def _figures(direction: DirectionDifference) -> list[list[str]]:
    rows = [[direction.name, "A", "B", "B - A", "p", "Holm"]]
    for metric, of in direction.metrics.items():
        rows.append(
            [
                label(metric),
                number(metric, of.a),
                number(metric, of.b),
                difference(metric, of.difference),
                *("" if p is None else f"{p:.4f}" for p in (of.p, of.adjusted_p)),
            ]
        )
    return rows


def _moved(direction: DirectionDifference) -> list[list[str]]:
    return [
        ["right answer ranked", "better in B", "the same", "worse in B"],
        [f"of {direction.queries} queries", *(str(n) for n in (direction.wins, direction.ties, direction.losses))],
    ]


def _seeds(direction: DirectionDifference) -> list[list[str]]:
    metrics = dict.fromkeys([*direction.seeds_of_a, *direction.seeds_of_b])
    columns = (direction.seeds_of_a, direction.seeds_of_b)
    rows = [["seeds, lowest to highest", "A", "B"]]
    return rows + [[label(metric), *(_spread(metric, of.get(metric, ())) for of in columns)] for metric in metrics]


def _spread(metric: str, values: Sequence[float]) -> str:
    return f"{number(metric, min(values))} to {number(metric, max(values))}" if values else ""


def _changed(title: str, queries: Sequence[ChangedQuery]) -> list[list[str]]:
    rows = [[title, "rank in A", "in B"]]
    return rows + [[_told(query), _rank(query.a), _rank(query.b)] for query in queries]


def _told(query: ChangedQuery) -> str:
    if not query.described_by:
        return shortened(query.source, LONGEST_SOURCE)
    half = LONGEST_SOURCE // 2
    return f"{shortened(query.source, half)}: {shortened(query.described_by, half - 2)}"


def _rank(rank: float) -> str:
    return f"{rank:.0f}" if rank == round(rank) else f"{rank:.1f}"
