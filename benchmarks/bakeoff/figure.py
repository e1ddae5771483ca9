"""The picture of a bake-off: R@1 by training items in both directions, and what it cost in seconds.

A method has its colour (Okabe and Ito, 2008), its marker and its line style whichever others take part, and its name
at the end of its line, so that the picture is read in print and without colours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusemix.benchmarks.curves import BLACK, COLOURS, GREY
from fusemix.benchmarks.labels import Label, place_labels
from fusemix.errors import needs_extra

from .results import BASELINE, COMPARED, Bakeoff
from .settings import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLES = ("-", "--", ":", "-.")
# Inches.
WIDTH, HEIGHT, LEFT, BOTTOM, PANEL, TALL, GAP, NAMES, TIMES = 13.4, 4.4, 0.45, 0.75, 3.1, 3.0, 1.75, 0.8, 1.85
# Error bars at one number of items stand side by side, as parts of the axis.
DODGE = 0.006


def look(method: str) -> tuple[str, str, str]:
    """Return colour, marker and line style of a method."""
    place = METHODS.index(method)
    colour = BLACK if method == BASELINE else (*COLOURS, GREY)[place]
    return colour, MARKERS[place], "-" if method == BASELINE else STYLES[place % len(STYLES)]


def check_matplotlib() -> None:
    """Find out before hours of work whether a picture can be drawn.

    Raises:
        FusemixError: where matplotlib is missing.
    """
    with needs_extra("plots", "drawing the bake-off"):
        import matplotlib.figure  # noqa: F401


def draw(result: Bakeoff) -> Figure:
    """Return the picture; matplotlib keeps nothing of it.

    Raises:
        FusemixError: where matplotlib is missing.
    """
    check_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        # A user's own style may be white on black.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 9, "axes.linewidth": 0.6, "axes.titlesize": 10})
        figure = Figure((WIDTH, HEIGHT))
        for number, direction in enumerate(result.directions):
            place = (LEFT + number * (PANEL + GAP)) / WIDTH, BOTTOM / HEIGHT, PANEL / WIDTH, TALL / HEIGHT
            _scores(figure.add_axes(place), result, direction)
        left = LEFT + 2 * (PANEL + GAP) + NAMES
        _times(figure.add_axes((left / WIDTH, BOTTOM / HEIGHT, TIMES / WIDTH, TALL / HEIGHT)), result)
        figure.text(LEFT / WIDTH, 1 - 0.2 / HEIGHT, _title(result), fontsize=10, weight="bold", va="center")
        figure.text(LEFT / WIDTH, 0.15 / HEIGHT, _about(result), fontsize=8, color=GREY, va="center")
    return figure


def _scores(axes: Axes, result: Bakeoff, direction: str) -> None:
    fractions = sorted(result.settings.fractions)
    items = {cell.fraction: cell.items for cell in result.cells}
    axes.set_xscale("log")
    span = max(items.values()) / min(items.values()) if len(items) > 1 else 10.0
    axes.set_xlim(min(items.values()) / span**0.08, max(items.values()) * span**0.08)
    labels = []
    for number, method in enumerate(result.methods):
        colour, marker, style = look(method)
        found = [result.cell(method, fraction).metrics[direction][COMPARED] for fraction in fractions]
        aside = span ** (1.16 * DODGE * (2 * number - len(result.methods) + 1))
        places = [items[fraction] * aside for fraction in fractions]
        values = [100 * one.value for one in found]
        axes.errorbar(
            places,
            values,
            # Of few items, percentiles may leave the mean itself out.
            yerr=[
                [max(100 * (one.value - one.low), 0) for one in found],
                [max(100 * (one.high - one.value), 0) for one in found],
            ],
            color=colour,
            marker=marker,
            linestyle=style,
            linewidth=2.0 if method == BASELINE else 1.3,
            markersize=8 if marker == "*" else 5,
            elinewidth=0.7,
            capsize=1.5,
            zorder=4 if method == BASELINE else 3,
        )
        labels.append(Label(f"{method} {values[-1]:.1f}", places[-1], values[-1], colour))
    axes.axhline(100 * result.chance[direction], color=GREY, linewidth=0.8, linestyle=(0, (1, 3)))
    highest = max(of[COMPARED].high for cell in result.cells for of in cell.metrics.values())
    axes.set_ylim(0, 105 * max(highest, 0.01))
    axes.set_xticks(list(items.values()), [f"{count:,}" for count in items.values()], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("training items; dotted: chance")
    axes.set_title(f"{direction}, {COMPARED} %", loc="left", parse_math=False)
    axes.grid(axis="y", color=GREY, alpha=0.2, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    place_labels(axes, labels, TALL)


def _times(axes: Axes, result: Bakeoff) -> None:
    """Draw the seconds of each method on the most items: filled to run, hollow to tune."""
    most = max(result.settings.fractions)
    axes.set_xscale("log")
    for row, method in enumerate(result.methods):
        colour, marker, _ = look(method)
        cell = result.cell(method, most)
        ends = [cell.seconds, cell.tuning_seconds]
        size = 9 if marker == "*" else 6
        axes.plot(ends, [row, row], color=colour, linewidth=0.8)
        axes.plot(ends[:1], [row], color=colour, marker=marker, markersize=size)
        axes.plot(ends[1:], [row], color=colour, marker=marker, markersize=size, markerfacecolor="white")
    axes.set_yticks(range(len(result.methods)), list(result.methods))
    axes.set_ylim(len(result.methods) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GREY, alpha=0.2, linewidth=0.5)
    axes.set_xlabel("seconds")
    axes.set_title("filled: to run, hollow: to tune", loc="left")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _title(result: Bakeoff) -> str:
    return f"Ways to align the same frozen latents: {result.dataset}, {result.split} split, {result.items:,} items"


def _about(result: Bakeoff) -> str:
    tried = result.settings.budget
    return (
        f"95% intervals by bootstrap over items. Each method tuned on validation over {tried}"
        f" configuration{'' if tried == 1 else 's'}, then the mean of {result.settings.seeds}"
        f" seed{'' if result.settings.seeds == 1 else 's'}; seconds on the most items."
    )
