"""The curves of runs as one picture: loss and retrieval of each edge, and below the small ones that explain them.

A row of panels for each edge: its loss, and R@1 and the mean reciprocal rank on the validation split.  Colour tells
the run (of a single run: the direction), and so do markers and a label at the end of each line, for those who see or
print no colours.  Solid lines go one way, dashed ones the other.  The colours are those of Okabe and Ito (2008),
without the yellow that paper swallows.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from fusemix.errors import needs_extra
from fusemix.files import replacing

from .history import Curve, History
from .labels import Label, place_labels, shortened
from .panel_rows import PanelRow, panel_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLES = ("-", "--", ":", "-.")
BLACK, GREY = "#000000", "#666666"
DPI = 150
# Inches.
WIDTH, LEFT, PANEL, GAP = 12.0, 0.65, 2.4, 1.38
MARGIN, LINE, TITLES, TALL, SMALL, TICKS = 0.15, 0.22, 0.85, 2.1, 1.0, 0.45
TICK_LABELS, LABELS, ROW_TITLE = 0.7, 0.75, 0.5
MOST_MARKERS, MARKERS_OF_STEPS, FEWEST_TO_SMOOTH = 40, 3, 50
LONGEST_LABEL, LONGEST_NAME = 13, 90
NOISY = ("loss", "gradient_norm", "items_per_second")
LOG_SCALE_FROM, SMALLEST_SPREAD = 30.0, 0.1
METRICS = {"R@1": "validation R@1", "mrr": "validation MRR"}
SMALL_PANELS = {
    "loss": "total loss",
    "temperature": "temperature",
    "bias": "bias",
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "items_per_second": "items per second",
}


def draw(runs: Sequence[History]) -> Figure:
    """Return the picture of one run or several, whose order decides their colours; matplotlib keeps nothing of it.

    Raises:
        FusemixError: where matplotlib is missing.
    """
    with needs_extra("plots", "drawing curves"):
        import matplotlib
        from matplotlib.figure import Figure
    rows = panel_rows(runs)
    small = [name for name in SMALL_PANELS if any(run.family(name) for run in runs)]
    if len(rows) == 1 and "loss" in small:
        small.remove("loss")
    top = MARGIN + LINE * len(runs)
    height = top + len(rows) * (TITLES + TALL) + bool(small) * (TITLES + SMALL) + TICKS
    with matplotlib.rc_context():
        # A user's own style may be white on black.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 8, "axes.linewidth": 0.6, "lines.linewidth": 1.4})
        page = _Page(Figure((WIDTH, height)), runs)
        page.header()
        for row in rows:
            page.row(row, top)
            top += TITLES + TALL
        page.small_panels(small, top)
    return page.figure


def save(figure: Figure, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    with replacing(path) as temporary, warnings.catch_warnings():
        # Where the font lacks a letter of a name, its box tells enough.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(temporary, format="png", dpi=DPI)


def smoothed(curve: Curve) -> Curve | None:
    """Return the running mean over a twenty-fifth of a curve's points around each, as far as there are some.

    None where there are too few to need it.
    """
    count = len(curve.values)
    if count < FEWEST_TO_SMOOTH:
        return None
    reach = max(count // 50, 1)
    return Curve(curve.steps, [fmean(curve.values[max(at - reach, 0) : at + reach + 1]) for at in range(count)])


class _Page:
    """A figure that is filled from the top; places and lengths are inches."""

    def __init__(self, figure: Figure, runs: Sequence[History]) -> None:
        self.figure, self.runs = figure, runs
        self.width, self.height = (float(side) for side in figure.get_size_inches())
        self.last_step = max((curve.steps[-1] for run in runs for curve in run.curves.values()), default=0)
        self.several = len(runs) > 1

    def header(self) -> None:
        """Write a line for each run, with its colour and marker, and how to read the rest."""
        for number, run in enumerate(self.runs):
            middle, left = MARGIN + LINE * (number + 0.5), LEFT
            text = f"{shortened(run.name, LONGEST_NAME)}: {run.steps:,} step{'s'[: run.steps > 1]}"
            if run.chosen:
                text += f", chosen after {run.chosen[0] + 1:,} with validation MRR {run.chosen[1]:.4f}"
            if self.several:
                axes = self._axes(LEFT, middle - LINE / 2, 0.45, LINE)
                axes.axis("off")
                axes.plot([0, 1, 2], [0, 0, 0], color=_colour(number), marker=_marker(number), markevery=[1])
                left += 0.55
            self._text(text, left, middle, size=10)
        how = "Ringed: the chosen validation. " * any(run.chosen for run in self.runs)
        how += "Thin: every step, bold: their running mean." * any(smoothed(run.curve("loss")) for run in self.runs)
        self._text(how, LEFT, MARGIN + LINE * (len(self.runs) + 0.6), size=8, colour=GREY)

    def row(self, row: PanelRow, top: float) -> None:
        """Draw the panels of an edge."""
        self._text(row.title, LEFT, top + ROW_TITLE, size=10, bold=True)
        places = [LEFT + column * (PANEL + GAP) for column in range(1 + len(METRICS))]
        if row.with_loss:
            self._loss(row, self._panel("training loss", places[0], top + TITLES, PANEL, TALL))
        for metric, place in zip(METRICS, places[1:], strict=True):
            self._retrieval(row, metric, self._panel(METRICS[metric], place, top + TITLES, PANEL, TALL))
        if self.several and len(row.directions) == 2:
            ways = f"solid: {row.directions[0]}, dashed: {row.directions[1]}"
            self._text(ways, places[1], top + ROW_TITLE, size=8, colour=GREY)

    def small_panels(self, names: Sequence[str], top: float) -> None:
        """Draw the small panels side by side."""
        labelled = [max(len(run.family(name)) for run in self.runs) > 1 for name in names]
        room = self.width - LEFT - TICK_LABELS * len(names) - LABELS * sum(labelled)
        width = min(room / max(len(names), 1), PANEL)
        left = LEFT
        for name, has_labels in zip(names, labelled, strict=True):
            self._small(name, self._panel(SMALL_PANELS[name], left, top + TITLES, width, SMALL))
            # A few stand below the tall ones, more as close as they can.
            left += PANEL + GAP if len(names) <= 1 + len(METRICS) else width + TICK_LABELS + LABELS * has_labels

    def _small(self, name: str, axes: Axes) -> None:
        labels = {}
        for index, run in enumerate(self.runs):
            figures = run.family(name)
            for figure, style in zip(figures, cycle(STYLES), strict=False):
                end = self._steps(axes, index, figure, style)
                if len(figures) > 1:
                    labels[figure] = Label(shortened(figure.partition("/")[2], LONGEST_LABEL), *end, BLACK)
        _choose_scale(axes, SMALL_PANELS[name], SMALL, allowed=name in NOISY)
        place_labels(axes, list(labels.values()), SMALL)

    def _loss(self, row: PanelRow, axes: Axes) -> None:
        labels = []
        for index, run in enumerate(self.runs):
            figure = row.loss_of(run)
            if run.curve(figure).steps:
                end = self._steps(axes, index, figure, "-")
                if self.several:
                    labels.append(Label(shortened(run.name, LONGEST_LABEL), *end, _colour(index)))
        _choose_scale(axes, "training loss", TALL)
        place_labels(axes, labels, TALL)

    def _retrieval(self, row: PanelRow, metric: str, axes: Axes) -> None:
        if metric == "R@1":
            axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        labels = []
        for index, run in enumerate(self.runs):
            for way, direction in enumerate(row.directions):
                curve = run.curve(f"{direction.key}/{metric}")
                if not curve.steps:
                    continue
                look = index if self.several else way
                self._validations(axes, run, f"{direction.key}/{metric}", look, STYLES[way])
                if way == 0 or not self.several:
                    text = run.name if self.several else str(direction)
                    end = curve.steps[-1], curve.values[-1]
                    labels.append(Label(shortened(text, LONGEST_LABEL), *end, _colour(look)))
        if not labels:
            axes.text(0.5, 0.5, "not validated yet", transform=axes.transAxes, ha="center", va="center", color=GREY)
            axes.set_yticks([])
        _keep_from_spreading(axes)
        place_labels(axes, labels, TALL)

    def _validations(self, axes: Axes, run: History, figure: str, look: int, style: str) -> None:
        """Draw a figure of every validation, the chosen one in a ring."""
        curve, colour = run.curve(figure), _colour(look)
        [line] = axes.plot(curve.steps, curve.values, style, color=colour, label=f"{run.name}: {figure}")
        line.set(marker=_marker(look) if len(curve.steps) <= MOST_MARKERS else "", markersize=3, clip_on=False)
        if run.chosen and run.chosen[0] in curve.steps:
            place = [run.chosen[0]], [curve.values[curve.steps.index(run.chosen[0])]]
            [ring] = axes.plot(*place, "o", color=colour, label=f"{run.name}: {figure}, chosen")
            ring.set(markersize=9, markerfacecolor="none", markeredgewidth=1.2, clip_on=False)

    def _steps(self, axes: Axes, index: int, figure: str, style: str) -> tuple[float, float]:
        """Draw a figure of every step of a run, and its running mean; return where the line ends."""
        run, colour = self.runs[index], _colour(index) if self.several else BLACK
        curve = run.curve(figure)
        mean = smoothed(curve) if figure.partition("/")[0] in NOISY else None
        [line] = axes.plot(curve.steps, curve.values, style, color=colour, label=f"{run.name}: {figure}")
        if mean is not None:
            line.set(alpha=0.3, linewidth=0.5)
            [line] = axes.plot(mean.steps, mean.values, style, color=colour, label=f"{run.name}: {figure}, mean")
        if self.several or len(curve.steps) == 1:
            apart = max(len(curve.steps) // MARKERS_OF_STEPS, 1)
            # Of lines that lie on each other, the markers do not.
            first = apart * index // len(self.runs)
            line.set(marker=_marker(index), markersize=3, markevery=(first, apart))
        return curve.steps[-1], (mean or curve).values[-1]

    def _panel(self, title: str, left: float, top: float, width: float, height: float) -> Axes:
        from matplotlib.ticker import MaxNLocator

        axes = self._axes(left, top, width, height)
        axes.set_title(title, loc="left", fontsize=8, pad=4)
        axes.set_xlim(-0.02 * max(self.last_step, 1), 1.02 * max(self.last_step, 1))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(_written)
        axes.yaxis.set_major_locator(MaxNLocator(5 if height == TALL else 3, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(_written)
        axes.set_xlabel("step", loc="right", labelpad=1, color=GREY, fontsize=7)
        axes.grid(color="#DDDDDD", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=2.5, width=0.6)
        return axes

    def _axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = 1 - (top + height) / self.height
        return self.figure.add_axes((left / self.width, bottom, width / self.width, height / self.height))

    def _text(
        self, text: str, left: float, middle: float, *, size: float, colour: str = BLACK, bold: bool = False
    ) -> None:
        place = left / self.width, 1 - middle / self.height
        weight = "bold" if bold else "normal"
        self.figure.text(*place, text, size=size, color=colour, weight=weight, va="center", parse_math=False)


def _choose_scale(axes: Axes, title: str, height: float, *, allowed: bool = True) -> None:
    """Take a logarithmic scale where values span more than a linear one can show, and say so."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axes.dataLim.intervaly
    if not allowed or low <= 0 or high < LOG_SCALE_FROM * low:
        return
    few = height == TALL and high < LOG_SCALE_FROM**2 * low
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.yaxis.set_major_formatter(_written)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"{title}, log scale", loc="left", fontsize=8, pad=4)


def _keep_from_spreading(axes: Axes) -> None:
    """Show shares of 0 to 1 at a scale that does not make mountains of a hundredth."""
    low, high = axes.dataLim.intervaly
    if low <= high:
        pad = max((SMALLEST_SPREAD - (high - low)) / 2, 0.05 * (high - low))
        axes.set_ylim(max(low - pad, -0.02 * SMALLEST_SPREAD), high + pad)


def _written(value: float, _: object) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _marker(index: int) -> str:
    # Its period differs from that of the colours, so that the seventh run looks like none before it.
    return MARKERS[index % len(MARKERS)]
