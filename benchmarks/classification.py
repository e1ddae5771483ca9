"""Figures of classification: accuracy, mean per-class recall, their intervals, and what each fold gave.

Ties are counted as they are for retrieval: acc1 is the probability that the right class comes first if classes that
score the same are put in a random order, so that a constant classifier has chance level and not 1.  A class that no
row belongs to cannot be recalled; it is left out of the mean and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fusemix.retrieval.metrics import recall_at
from fusemix.retrieval.ranks import Ranks

from .bootstrap import Floats, Interval, ItemBootstrap
from .labelled import Integers, LabelledRows, splits_of

TIE = 1e-12
PER_CLASS = "mean_per_class_recall"
NAMES_TO_SAY = 3


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over folds."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class ClassificationResult:
    """What a classifier reached on rows with known classes.

    `metrics` pool all rows; `folds` has each fold's own figures, and `over_folds` their mean, which papers print, and
    their spread.  Both are empty where the rows are of one split.
    """

    method: str
    settings: Mapping[str, object]
    dataset: str
    fingerprint: str
    modality: str
    kind: str
    splits: tuple[str, ...]
    """Splits whose rows were classified."""
    rows: int
    items: int
    classes: int
    classes_without_rows: int
    tie_rate: float
    """Part of the rows where another class scores the same as the right one."""
    chance: dict[str, float]
    commonest: float
    """acc1 of a classifier that always says the commonest class of the rows."""
    draws: int
    metrics: dict[str, Interval]
    folds: dict[str, dict[str, float]]
    over_folds: dict[str, Spread]
    notes: tuple[str, ...]
    """What a reader of the figures must know."""

    def to_dict(self) -> dict[str, object]:
        """Return the result as JSON has it."""
        return asdict(self)


def class_ranks(scores: Tensor, labels: Integers) -> Ranks:
    """Count for each row the classes that score higher than the right one, and those that score the same.

    Scores tie where they differ by no more than 1e-12 of the row's largest.

    Args:
        scores: (N, C), -inf for a class that the classifier does not know; a row of such a class counts as missed.
        labels: (N,) number of each row's class.
    """
    scores, own = scores.double(), torch.from_numpy(labels)[:, None]
    positive = scores.gather(1, own)
    tolerance = TIE * scores.masked_fill(scores == -torch.inf, 0).abs().amax(dim=1, keepdim=True)
    better = (scores > positive + tolerance).sum(dim=1)
    tied = (scores >= positive - tolerance).sum(dim=1) - better - 1
    unknown = positive[:, 0] == -torch.inf
    better[unknown], tied[unknown] = scores.shape[1], 0
    return Ranks(torch.arange(len(scores)), better, tied)


def summarise(
    method: str,
    rows: LabelledRows,
    ranks: Ranks,
    *,
    settings: Mapping[str, object],
    k: Sequence[int] = (1, 5),
    draws: int = 1000,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> ClassificationResult:
    """Give accuracies with intervals by bootstrap over items.

    Args:
        method: what classified.
        rows: the rows that were classified.
        ranks: how the right class of each is placed.
        settings: of the method.
        k: the k of acc@k; those that are not below the number of classes say nothing and are left out.
        draws: bootstrap draws over items.
        seed: decides the draws.
        notes: what else a reader must know.
    """
    hits = {f"acc{n}": recall_at(n, ranks).numpy() for n in k if n < len(rows.names)}
    first = recall_at(1, ranks).numpy()
    items, item_of_row = np.unique(rows.items, return_inverse=True)
    bootstrap = ItemBootstrap(len(items), draws, seed)
    metrics = {
        name: Interval.of(values.mean(), bootstrap.means(values, item_of_row)) for name, values in hits.items()
    }
    metrics[PER_CLASS] = Interval.of(
        per_class_recall(first, rows.labels), _draws_per_class(first, rows.labels, item_of_row, bootstrap)
    )
    folds = _by_fold(hits, first, rows)
    counts = np.bincount(rows.labels, minlength=len(rows.names))
    return ClassificationResult(
        method,
        settings,
        rows.dataset.name,
        rows.dataset.fingerprint,
        rows.modality,
        rows.kind,
        tuple(splits_of(rows)),
        len(rows),
        len(items),
        len(rows.names),
        int((counts == 0).sum()),
        float((ranks.tied > 0).double().mean()),
        {name: n / len(rows.names) for n in k if (name := f"acc{n}") in hits},
        float(counts.max() / len(rows)),
        draws,
        metrics,
        folds,
        _over_folds(folds),
        (*_notes(rows, counts), *notes),
    )


def per_class_recall(hits: Floats, labels: Integers) -> float:
    """Return the mean over classes of the mean over each class's rows, classes without rows left out."""
    counts = np.bincount(labels)
    return float((np.bincount(labels, hits)[counts > 0] / counts[counts > 0]).mean())


def _draws_per_class(
    hits: Floats, labels: Integers, item_of_row: npt.NDArray[np.intp], bootstrap: ItemBootstrap
) -> Floats:
    """Return the mean per-class recall in each draw, over the classes that it has rows of."""
    recalls = np.zeros(len(bootstrap.weights))
    drawn = np.zeros(len(bootstrap.weights))
    order = np.argsort(labels, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        weights = bootstrap.weights[:, item_of_row[rows]]
        counts = weights.sum(axis=1)
        recalls += weights @ hits[rows] / np.maximum(counts, 1)
        drawn += counts > 0
    return np.asarray(recalls / np.maximum(drawn, 1))


def _by_fold(hits: Mapping[str, Floats], first: Floats, rows: LabelledRows) -> dict[str, dict[str, float]]:
    names = splits_of(rows)
    if len(names) < 2:
        return {}
    folds = {}
    for name in names:
        inside = rows.splits == name
        folds[name] = {metric: float(values[inside].mean()) for metric, values in hits.items()}
        folds[name][PER_CLASS] = per_class_recall(first[inside], rows.labels[inside])
    return folds


def _over_folds(folds: Mapping[str, Mapping[str, float]]) -> dict[str, Spread]:
    if not folds:
        return {}
    values = {metric: [fold[metric] for fold in folds.values()] for metric in next(iter(folds.values()))}
    return {metric: Spread(fmean(each), stdev(each)) for metric, each in values.items()}


def _notes(rows: LabelledRows, counts: Integers) -> list[str]:
    notes = []
    empty = np.flatnonzero(counts == 0).tolist()
    if empty:
        some = ", ".join(repr(rows.names[number]) for number in empty[:NAMES_TO_SAY])
        more = ", ..." if len(empty) > NAMES_TO_SAY else ""
        notes.append(
            f"{len(empty)} of {len(rows.names)} classes have no row ({some}{more}): they are left out of the mean"
            " per-class recall"
        )
    if rows.unlabelled:
        notes.append(f"{rows.unlabelled} items have no class and are left out")
    return notes
