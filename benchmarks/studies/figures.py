"""A picture of a study: its levels with intervals, and their differences to the baseline.

Validation and test differ in colour (Okabe and Ito, 2008), in marker and in place, and each says its name, so that
the picture is read without a legend and without colours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fusemix.benchmarks.bootstrap import Interval
from fusemix.benchmarks.curves import BLACK, COLOURS, GREY
from fusemix.errors import needs_extra

from .analysis import OnSplit, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {"val": "validation", "test": "test"}
LOOKS = {"val": (COLOURS[0], "o", 0.17), "test": (COLOURS[1], "s", -0.17)}
# Inches.
WIDTH, LEFT, PANEL, GAP, TOP, BOTTOM, ROW = 9.0, 1.5, 3.3, 0.6, 0.5, 0.55, 0.55
REFERENCE_LABELS = 0.55
# Room at the sides of a panel and for names, as parts of what the figures span.
MARGIN, NAMED = 0.08, 0.3


def draw(result: StudyResult) -> Figure:
    """Return the picture of a study; matplotlib keeps nothing of it.

    Raises:
        FusemixError: where matplotlib is missing.
    """
    with needs_extra("plots", "drawing studies"):
        import matplotlib
        from matplotlib.figure import Figure
    top = TOP + (REFERENCE_LABELS if result.references else 0)
    rows = len(result.levels)
    height = top + rows * ROW + BOTTOM
    with matplotlib.rc_context():
        # A user's own style may be white on black.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 9, "axes.linewidth": 0.6, "axes.titlesize": 9})
        figure = Figure((WIDTH, height))
        places = [(LEFT + number * (PANEL + GAP)) / WIDTH for number in range(2)]
        panels = [figure.add_axes((x, BOTTOM / height, PANEL / WIDTH, rows * ROW / height)) for x in places]
        figure.text(0.15 / WIDTH, 1 - 0.12 / height, result.question, fontsize=10, weight="bold", va="top")
        _levels(panels[0], result)
        _differences(panels[1], result)
    return figure


def _levels(axes: Axes, result: StudyResult) -> None:
    """Draw each level's MRR with its interval and its seeds, and beside them what they are seen against."""
    references = {reference.name: reference.splits["val"].mrr.value for reference in result.references}
    _points(axes, result, lambda one: (one.mrr, one.of_seeds), list(references.values()))
    axes.set_yticks(range(len(result.levels)), [level.name for level in result.levels])
    axes.set_xlabel("MRR, mean of both directions")
    for name, value in references.items():
        axes.axvline(value, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        axes.annotate(
            f"{name} {value:.3f}",
            (value, 1.02),
            xycoords=("data", "axes fraction"),
            rotation=20,
            fontsize=8,
            color=GREY,
        )


def _differences(axes: Axes, result: StudyResult) -> None:
    """Draw each level's difference to the baseline, with its interval and its seeds."""

    def difference(one: OnSplit) -> tuple[Interval, tuple[float, ...]] | None:
        return (one.difference.mrr, one.difference.of_seeds) if one.difference is not None else None

    _points(axes, result, difference, [0.0])
    axes.axvline(0, color=BLACK, linewidth=0.8, zorder=0)
    left, right = axes.get_xlim()
    axes.text(0, result.base, " baseline ", color=GREY, va="center", ha="right" if -left > right else "left")
    axes.set_yticks(range(len(result.levels)), [""] * len(result.levels))
    axes.set_xlabel(f'difference to "{result.baseline.name}"')


def _points(
    axes: Axes,
    result: StudyResult,
    pick: Callable[[OnSplit], tuple[Interval, tuple[float, ...]] | None],
    shown: Sequence[float],
) -> None:
    """Draw a point for each level and split, on an axis that holds the values `shown` too."""
    # The right-most figure of those that say their names, and of all.
    ends, named = list(shown), float("-inf")
    for row, level in enumerate(result.levels):
        picked = {split: found for split in NAMES if (found := pick(level.splits[split])) is not None}
        for split, (mrr, seeds) in picked.items():
            _point(axes, row, split, mrr, seeds, named=named == float("-inf"))
            ends += [mrr.low, mrr.high, *seeds]
        if named == float("-inf"):
            named = max((max(mrr.high, *seeds) for mrr, seeds in picked.values()), default=named)
    axes.set_ylim(len(result.levels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    low, high = min(ends), max(ends)
    span = max(high - low, 0.02)
    axes.set_xlim(low - MARGIN * span, max(high + MARGIN * span, named + NAMED * span))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _point(axes: Axes, row: int, split: str, mrr: Interval, seeds: tuple[float, ...], *, named: bool) -> None:
    colour, marker, lift = LOOKS[split]
    y = row - lift
    axes.errorbar(
        mrr.value,
        y,
        # Of few items, percentiles may leave the mean itself out.
        xerr=[[max(mrr.value - mrr.low, 0)], [max(mrr.high - mrr.value, 0)]],
        color=colour,
        marker=marker,
        markersize=5,
        capsize=3,
        linewidth=1.4,
    )
    axes.plot(seeds, [y] * len(seeds), linestyle="", marker="|", markersize=7, color=colour, alpha=0.6)
    if named:
        axes.annotate(
            NAMES[split],
            (max(mrr.high, *seeds), y),
            (5, 0),
            textcoords="offset points",
            color=colour,
            fontsize=8,
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )


def caption(result: StudyResult) -> str:
    """Return what the picture shows, for those who do not see it."""
    return f"{result.question} MRR of {', '.join(level.name for level in result.levels)}, with 95% intervals"
