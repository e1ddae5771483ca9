"""Linear CKA between encoders as a picture: a square for each pair, with its value in it.

One hue grows darker with the value, up to the largest of two different encoders, so that neither print nor colour
blindness takes anything away; the number in each square says it without colour.  A frame marks the two encoders of
different modalities that are most alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fusemix.errors import needs_extra

from .cka import CkaMatrix
from .labels import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS, SAME, FRAME, GREY = "Blues", "#EEEEEE", "#D55E00", "#666666"
LEAST_RANGE, WHITE_FROM = 0.1, 0.7
# Inches.
SQUARE, SMALLEST, LETTER, EDGE, LINE = 0.62, 3.4, 0.068, 0.2, 0.22
LONGEST_NAME = 36


def draw(matrix: CkaMatrix) -> Figure:
    """Return the picture of a matrix; matplotlib keeps nothing of it.

    Raises:
        FusemixError: where matplotlib is missing.
    """
    with needs_extra("plots", "drawing CKA"):
        import matplotlib
        from matplotlib.figure import Figure
    names = [shortened(name, LONGEST_NAME) for name in matrix.names]
    side = max(SQUARE * len(names), SMALLEST)
    margin, head = EDGE + LETTER * max(map(len, names)), EDGE + 3.5 * LINE
    width, height = margin + side + EDGE, head + side + margin
    with matplotlib.rc_context():
        # A user's own style may be white on black.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 8, "axes.linewidth": 0.6})
        figure = Figure((width, height))
        lines = ["Linear CKA of latents, debiased", _about(matrix), _framed(matrix)]
        for number, line in enumerate(lines):
            place = EDGE / width, 1 - (EDGE + number * LINE) / height
            text = figure.text(*place, line, va="center", parse_math=False)
            text.set(**({"size": 8, "color": GREY} if number else {"size": 10, "weight": "bold"}))
        _squares(figure.add_axes((margin / width, margin / height, side / width, side / height)), matrix, names)
    return figure


def _squares(axes: Axes, matrix: CkaMatrix, names: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    places = range(len(names))
    largest = max(matrix.values[row][column] for row in places for column in places if row != column)
    darkest = max(largest, LEAST_RANGE)
    axes.imshow(matrix.values, cmap=COLOURS, vmin=0, vmax=darkest)
    for row in places:
        axes.add_patch(Rectangle((row - 0.5, row - 0.5), 1, 1, color=SAME, linewidth=0))
        for column in places:
            value = matrix.values[row][column]
            white = row != column and value > WHITE_FROM * darkest
            text = "1" if row == column else f"{value:.2f}"
            axes.text(column, row, text, ha="center", va="center", color="white" if white else "black")
    axes.set_xticks(places, names, rotation=90)
    axes.set_yticks(places, names)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for edge in places[1:]:
        new = matrix.modalities[edge] != matrix.modalities[edge - 1]
        for line in (axes.axhline, axes.axvline):
            line(edge - 0.5, color="white", linewidth=3 if new else 0.6)
    if best := matrix.best_pair():
        for row, column in (best, best[::-1]):
            frame = Rectangle((column - 0.44, row - 0.44), 0.88, 0.88, fill=False, edgecolor=FRAME, linewidth=2)
            axes.add_patch(frame).set_zorder(3)


def _framed(matrix: CkaMatrix) -> str:
    return "Framed: the two of different modalities that are most alike." if matrix.best_pair() else ""


def _about(matrix: CkaMatrix) -> str:
    counts = {matrix.items[row][column] for row in range(len(matrix.names)) for column in range(row)}
    low, high = min(counts), max(counts)
    items = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{shortened(matrix.dataset, LONGEST_NAME)}, split {matrix.split}: {items} items"
