"""What was measured beyond retrieval, as tables for 80 columns, and without a terminal too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

from .bootstrap import Interval
from .cka import CkaMatrix
from .classification import PER_CLASS, ClassificationResult
from .diagnostics import Diagnostics, Hubness, PairFigures
from .labels import shortened

WIDTH = 80
LONGEST_NAME = 36
CKA_CELL = 6
_CAVEAT = "95% intervals by bootstrap over items, given these classes and this model."
_TITLES = {"zero-shot": "Zero-shot classification", "linear probe": "Linear probe", "kNN probe": "kNN probe"}
_KEY = {
    "effective rank": "dimensions that are in use",
    "uniformity": "at most 0; lower is more evenly spread over the sphere",
    "modality gap": "distance of the modalities' means, 0 to 2; 0 is no gap",
    "alignment": "mean squared distance of positive pairs, 0 to 4; 2 is unrelated",
    "hub skewness": "0 where rows turn up evenly among the nearest, large where some are hubs",
    "never found": "rows that are among the nearest of no query",
}


def classification_table(result: ClassificationResult, title: str) -> str:
    """Return the figures of a classifier, and those of each fold where there are several.

    Args:
        result: the figures.
        title: what was classified through what: `image embeddings of the run emoji`.
    """
    splits = result.splits
    where = f"{splits[0]} split" if len(splits) == 1 else f"{len(splits)} folds"
    of_items = "" if result.items == result.rows else f" of {result.items:,} items"
    head = [
        f"{_TITLES[result.method]} on {result.dataset}, {where}:"
        f" {result.rows:,} rows{of_items}, {result.classes:,} classes",
        title,
        *_settings(result),
    ]
    rows = [["", "%", "chance"]]
    for metric, interval in result.metrics.items():
        chance = result.chance.get(metric)
        rows.append([_name(metric), _percent(interval), "" if chance is None else f"{100 * chance:.1f}"])
    told = [
        f"always the commonest class: acc1 {100 * result.commonest:.1f}",
        f"ties: {100 * result.tie_rate:.1f} % of the rows",
        *(f"note: {note}" for note in result.notes),
    ]
    wrapped = [line for text in head for line in wrap(text, WIDTH, subsequent_indent="  ")]
    parts = [wrapped, aligned(rows), *([_fold_rows(result)] if result.folds else [])]
    told = [line for text in [*told, _CAVEAT] for line in wrap(text, WIDTH, subsequent_indent="  ")]
    return "\n\n".join("\n".join(part) for part in [*parts, told])


def diagnostics_table(figures: Diagnostics, run: str) -> str:
    """Return the figures of a space: a column for each modality, then for each pair of them, then what they mean.

    Args:
        figures: of one dataset.
        run: name of the run.
    """
    head = f"Embeddings of the run {run} on {figures.dataset}, {figures.split} split"
    of_modalities = [
        ["", *(one.modality for one in figures.modalities)],
        ["rows", *(f"{one.rows:,}" for one in figures.modalities)],
        ["dimensions", *(str(one.dim) for one in figures.modalities)],
        ["effective rank", *(f"{one.effective_rank:.1f}" for one in figures.modalities)],
        ["uniformity", *(f"{one.uniformity:.2f}" for one in figures.modalities)],
    ]
    blocks = [wrap(head, WIDTH, subsequent_indent="  "), aligned(of_modalities)]
    for pair in figures.pairs:
        blocks.append(aligned(_pair_rows(pair)))
        blocks.append(aligned(_hub_rows(pair.hubness)))
    blocks.append([line for name, means in _KEY.items() for line in wrap(f"{name}: {means}", WIDTH)])
    return "\n\n".join("\n".join(block) for block in blocks)


def cka_table(matrix: CkaMatrix) -> str:
    """Return the lower half of a matrix, in blocks of columns that fit, and which pair is most alike."""
    names = [shortened(name, LONGEST_NAME) for name in matrix.names]
    counts = [matrix.items[i][j] for i in range(len(names)) for j in range(i)]
    items = f"{min(counts):,}" + (f" to {max(counts):,}" if max(counts) > min(counts) else "")
    head = f"Linear CKA of latents of {matrix.dataset}, {matrix.split} split: {items} items in common"
    blocks = [wrap(head, WIDTH, subsequent_indent="  ")]
    label = len(str(len(names))) + 2 + max(map(len, names))
    at_once = max(1, (WIDTH - label) // CKA_CELL)
    for first in range(0, len(names), at_once):
        columns = range(first, min(first + at_once, len(names)))
        lines = [" " * label + "".join(f"{column + 1:>{CKA_CELL}}" for column in columns)]
        for row in range(first, len(names)):
            cells = (
                "1" if row == column else f"{matrix.values[row][column]:.2f}" for column in columns if column <= row
            )
            number = f"{row + 1:>{len(str(len(names)))}}"
            lines.append(f"{number}  {names[row]}".ljust(label) + "".join(f"{cell:>{CKA_CELL}}" for cell in cells))
        blocks.append(lines)
    blocks.append([*_most_alike(matrix, names), "Debiased: about 0 where latents have nothing in common, 1 at most."])
    return "\n\n".join("\n".join(block) for block in blocks)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _settings(result: ClassificationResult) -> list[str]:
    """Return what a classifier was set to, in words."""
    given = result.settings
    if "prompts" in given:
        count = given["templates"]
        return [f"prompts {given['prompts']}: {count} template{'' if count == 1 else 's'} for each name"]
    if "neighbours" in given:
        votes = "one vote each" if given["temperature"] is None else f"votes of temperature {given['temperature']}"
        return [f"{given['neighbours']} neighbours, {votes}"]
    strengths = given["C"]
    assert isinstance(strengths, Mapping)  # noqa: S101  # the settings of each method are its own
    named = ", ".join(f"{value:.4g}" for value in dict.fromkeys(strengths.values()))
    return [f"C {named}{', chosen on validation' if given['C chosen on validation'] else ''}"]


def _fold_rows(result: ClassificationResult) -> list[str]:
    metrics = list(result.metrics)
    rows = [["%", *map(_name, metrics)]]
    rows += [[fold, *(f"{100 * of[metric]:.1f}" for metric in metrics)] for fold, of in result.folds.items()]
    rows.append(["mean of folds", *(f"{100 * result.over_folds[metric].mean:.1f}" for metric in metrics)])
    rows.append(["deviation", *(f"{100 * result.over_folds[metric].deviation:.1f}" for metric in metrics)])
    return aligned(rows)


def _pair_rows(pair: PairFigures) -> list[list[str]]:
    return [
        [f"{pair.a} and {pair.b}, {pair.items:,} items", ""],
        ["modality gap", f"{pair.modality_gap:.3f}"],
        ["alignment", f"{pair.alignment:.3f}"],
    ]


def _hub_rows(hubness: Sequence[Hubness]) -> list[list[str]]:
    return [
        [f"{hubness[0].neighbours} nearest", *(one.direction for one in hubness)],
        ["hub skewness", *(f"{one.skewness:.2f}" for one in hubness)],
        ["never found %", *(f"{100 * one.never:.1f}" for one in hubness)],
    ]


def _most_alike(matrix: CkaMatrix, names: Sequence[str]) -> list[str]:
    best = matrix.best_pair()
    if best is None:
        return []
    i, j = best
    said = f"Most alike of different modalities: {names[i]} and {names[j]}, {matrix.values[i][j]:.2f}."
    return wrap(said, WIDTH, subsequent_indent="  ")


def _name(metric: str) -> str:
    return "mean per-class recall" if metric == PER_CLASS else metric


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
