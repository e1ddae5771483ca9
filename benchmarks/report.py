"""Figures as text: a table that fits a narrow terminal, and the same as Markdown to paste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from .bootstrap import Interval

WIDTH = 80
CAVEAT = "95% intervals by bootstrap over items, given this gallery and this model."

Table = Sequence[Sequence[str]]
"""Rows of cells; the first row and the first column are headings, an empty row parts others in a terminal."""


@dataclass(frozen=True)
class Report:
    """Lines, tables, lines."""

    head: Sequence[str]
    tables: Sequence[Table]
    foot: Sequence[str]

    def text(self) -> str:
        """Return it for a terminal of 80 columns, or without one."""
        blocks = [_wrapped(self.head), *(aligned(table) for table in self.tables), _wrapped(self.foot)]
        return "\n\n".join("\n".join(block) for block in blocks)

    def markdown(self) -> str:
        """Return it as Markdown."""
        tables = ["\n".join(piped([row for row in table if any(row)])) for table in self.tables]
        said = ["  \n".join(filter(None, lines)) for lines in (self.head, self.foot)]
        return "\n\n".join([said[0], *tables, said[1]])


def aligned(rows: Table) -> list[str]:
    """Return the lines of a table, its first column to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def label(metric: str) -> str:
    """Return a metric's name with its unit."""
    return f"{metric} %" if "@" in metric else metric


def number(metric: str, value: float) -> str:
    """Return a metric's value: parts in percent, reciprocal ranks to three places, ranks to one."""
    if "@" in metric:
        return f"{100 * value:.1f}"
    if metric == "MRR":
        return f"{value:.3f}"
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def interval(metric: str, of: Interval) -> str:
    """Return a value with the bounds of its interval."""
    return f"{number(metric, of.value)} [{number(metric, of.low)}, {number(metric, of.high)}]"


def difference(metric: str, of: Interval) -> str:
    """Return a difference with the bounds of its interval, each with its sign."""
    texts = [number(metric, value) for value in (of.value, of.low, of.high)]
    value, low, high = (text if text.startswith("-") else f"+{text}" for text in texts)
    return f"{value} [{low}, {high}]"


def _wrapped(lines: Sequence[str]) -> list[str]:
    # A line without words parts others; names and paths stay whole, to be copied.
    wrapped = (
        wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False) for line in lines
    )
    return [part for of in wrapped for part in of or [""]]


def piped(rows: Table) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    rule = "|---|" + "---:|" * (len(rows[0]) - 1)
    return [lines[0], rule, *lines[1:]]
