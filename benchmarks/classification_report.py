"""What a classifier reached, as tables: accuracies with intervals beside chance, and what each fold gave."""

from __future__ import annotations

from collections.abc import Mapping

from .bootstrap import Interval
from .classification import PER_CLASS, ClassificationResult
from .report import Report, Table

_TITLES = {"zero-shot": "Zero-shot classification", "linear probe": "Linear probe", "kNN probe": "kNN probe"}
_CAVEAT = "95% intervals by bootstrap over items, given these classes and this model."


def classification_report(result: ClassificationResult, title: str) -> Report:
    """Return the figures of a classifier, and those of each fold where there are several.

    Args:
        result: the figures.
        title: what was classified through what: `image embeddings of the run emoji`.
    """
    splits = result.splits
    where = f"{splits[0]} split" if len(splits) == 1 else f"{len(splits)} folds"
    of_items = "" if result.items == result.rows else f" of {result.items:,} items"
    counts = f"{result.rows:,} rows{of_items}, {result.classes:,} classes"
    figures = [["", "%", "chance"]]
    for metric, value in result.metrics.items():
        chance = result.chance.get(metric)
        figures.append([_name(metric), _percent(value), "" if chance is None else f"{100 * chance:.1f}"])
    return Report(
        [f"{_TITLES[result.method]} on {result.dataset}, {where}: {counts}", title, _settings(result)],
        [figures, *([_fold_table(result)] if result.folds else [])],
        [
            f"always the commonest class: acc1 {100 * result.commonest:.1f}",
            f"ties: {100 * result.tie_rate:.1f} % of the rows",
            *(f"note: {note}" for note in result.notes),
            _CAVEAT,
        ],
    )


def _settings(result: ClassificationResult) -> str:
    """Return what a classifier was set to, in words."""
    given = result.settings
    if "prompts" in given:
        count = given["templates"]
        return f"prompts {given['prompts']}: {count} template{'' if count == 1 else 's'} for each name"
    if "neighbours" in given:
        votes = "one vote each" if given["temperature"] is None else f"votes of temperature {given['temperature']}"
        return f"{given['neighbours']} neighbours, {votes}"
    strengths = given["C"]
    assert isinstance(strengths, Mapping)  # noqa: S101  # the settings of each method are its own
    named = ", ".join(f"{value:.4g}" for value in dict.fromkeys(strengths.values()))
    return f"C {named}{', chosen on validation' if given['C chosen on validation'] else ''}"


def _fold_table(result: ClassificationResult) -> Table:
    metrics = list(result.metrics)
    rows = [["%", *map(_name, metrics)]]
    rows += [[fold, *(f"{100 * of[metric]:.1f}" for metric in metrics)] for fold, of in result.folds.items()]
    rows.append(["mean of folds", *(f"{100 * result.over_folds[metric].mean:.1f}" for metric in metrics)])
    rows.append(["deviation", *(f"{100 * result.over_folds[metric].deviation:.1f}" for metric in metrics)])
    return rows


def _name(metric: str) -> str:
    return "mean per-class recall" if metric == PER_CLASS else metric


def _percent(of: Interval) -> str:
    return f"{100 * of.value:.1f} [{100 * of.low:.1f}, {100 * of.high:.1f}]"
