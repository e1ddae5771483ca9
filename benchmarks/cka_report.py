"""How alike encoders see the same items, as a table: the lower half of the matrix, in blocks of columns that fit."""

from __future__ import annotations

from .cka import CkaMatrix
from .labels import shortened
from .report import WIDTH, Report, Table

LONGEST_NAME = 36
COLUMN = len("  -0.00")


def cka_report(matrix: CkaMatrix) -> Report:
    """Return the values of all pairs of files, and which pair of different modalities is most alike."""
    names = [shortened(name, LONGEST_NAME) for name in matrix.names]
    places = range(len(names))
    counts = [matrix.items[row][column] for row in places for column in range(row)]
    items = f"{min(counts):,}" + (f" to {max(counts):,}" if max(counts) > min(counts) else "")
    labels = [f"{place + 1:>{len(str(len(names)))}}  {name}" for place, name in enumerate(names)]
    at_once = (WIDTH - max(map(len, labels))) // COLUMN
    return Report(
        [f"Linear CKA of latents of {matrix.dataset}, {matrix.split} split: {items} items in common"],
        [_block(matrix, labels, places[first : first + at_once]) for first in places[::at_once]],
        [*_most_alike(matrix, names), "Debiased: about 0 where latents have nothing in common, 1 at most."],
    )


def _block(matrix: CkaMatrix, labels: list[str], columns: range) -> Table:
    rows = [["", *(str(column + 1) for column in columns)]]
    for row in range(columns.start, len(labels)):
        values = matrix.values[row]
        shown = (f"{values[column]:.2f}" for column in columns if column <= row)
        rows.append([labels[row], *shown, *("" for column in columns if column > row)])
    return rows


def _most_alike(matrix: CkaMatrix, names: list[str]) -> list[str]:
    best = matrix.best_pair()
    if best is None:
        return []
    i, j = best
    return [f"Most alike of different modalities, {matrix.values[i][j]:.2f}: {names[i]} and {names[j]}."]
