"""Labels at the ends of lines, which say what a line is without a legend to look up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 8.0
POINTS_AN_INCH, LINE_SPACING = 72, 1.25
DISTANCE = 0.05
LEADER = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}


@dataclass(frozen=True)
class Label:
    """A text for the point where a line ends, in the units of the axes' data."""

    text: str
    x: float
    y: float
    colour: str


def place_labels(axes: Axes, labels: Sequence[Label], height: float) -> None:
    """Write labels right of the axes, level with the ends of their lines as far as they keep apart.

    Args:
        axes: their limits are final.
        labels: of the lines.
        height: of the axes in inches.
    """
    axes.get_ylim()  # matplotlib finds the limits only when it is asked for them
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [float(to_axes.transform((one.x, one.y))[1]) for one in labels]
    line = SIZE * LINE_SPACING / POINTS_AN_INCH / height
    sizes = [line * (one.text.count("\n") + 1) for one in labels]
    for label, place in zip(labels, spread(ends, sizes), strict=True):
        axes.annotate(
            label.text,
            (label.x, label.y),
            (1 + DISTANCE, place),
            textcoords="axes fraction",
            arrowprops=LEADER | {"color": label.colour},
            color=label.colour,
            fontsize=SIZE,
            verticalalignment="center",
            annotation_clip=False,
            parse_math=False,
        )


def spread(wanted: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Return centres close to the wanted ones and in their order, for things that must not overlap.

    They stay between 0 and 1 where there is room for all, and leave at the bottom where there is not.
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    placed = [0.0] * len(wanted)
    floor = 0.0
    for index in order:
        placed[index] = max(wanted[index], floor + sizes[index] / 2)
        floor = placed[index] + sizes[index] / 2
    ceiling = 1.0
    for index in reversed(order):
        placed[index] = min(placed[index], ceiling - sizes[index] / 2)
        ceiling = placed[index] - sizes[index] / 2
    return placed


def shortened(text: str, longest: int) -> str:
    """Return a text of at most `longest` letters, its middle left out where it is longer."""
    if len(text) <= longest:
        return text
    kept = longest - 1
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
