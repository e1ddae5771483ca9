"""Probes: how well the classes of rows can be read off latents or embeddings that are not trained any further.

The linear probe is CLIP's (Radford et al., ICML 2021, section 3.2 and appendix A.3): logistic regression by L-BFGS
on the features as they are.  The kNN probe is DINO's (Caron et al., ICCV 2021, section 3.2, and its eval_knn.py):
the k nearest training rows by cosine vote for their class with weight exp(cosine / T).  Neither is random.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix.errors import FusemixError, needs_extra
from fusemix.retrieval.metrics import recall_at
from fusemix.retrieval.ranks import Ranks

from .classification import ClassificationResult, class_ranks, summarise
from .labelled import Fold, Integers, LabelledRows
from .neighbours import nearest_neighbours

STEPS_OF_A_DECADE, LAST_STEP = 8, 96
COARSE_STEP = 16


@dataclass(frozen=True)
class LinearProbe:
    """Settings of the linear probe."""

    c: float | None = 0.316
    """Inverse strength of the L2 penalty; None chooses it on the validation rows."""
    max_iter: int = 1000
    """Iterations of L-BFGS at most."""

    def __post_init__(self) -> None:
        if self.c is not None and not 0 < self.c < math.inf:
            raise FusemixError(f"the linear probe's c is {self.c}: it must be above 0, or None to choose it")
        if self.max_iter < 1:
            raise FusemixError(f"the linear probe's max_iter is {self.max_iter}: it must be at least 1")


@dataclass(frozen=True)
class NeighbourProbe:
    """Settings of the kNN probe."""

    k: int = 20
    """Neighbours that vote."""
    temperature: float | None = 0.07
    """T of the weights exp(cosine / T); None gives each neighbour one vote."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise FusemixError(f"the kNN probe's k is {self.k}: it must be at least 1")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise FusemixError(
                f"the kNN probe's temperature is {self.temperature}: it must be above 0, or None for plain votes"
            )


def linear_probe(
    rows: LabelledRows,
    folds: Sequence[Fold],
    probe: LinearProbe = LinearProbe(),
    *,
    k: Sequence[int] = (1, 5),
    draws: int = 1000,
    seed: int = 0,
) -> ClassificationResult:
    """Fit logistic regression on the training and validation rows of each fold, and classify its test rows.

    Where `probe.c` is None it is chosen as CLIP does: by accuracy on the validation rows of classifiers fitted on the
    training rows, over 10^-6 to 10^6 in steps of an eighth of a decade, first every second decade, then around the
    best in halves.  The smaller of two equally good ones is taken.

    Args:
        rows: features and classes.
        folds: from `holdout` or `leave_one_out`; each row is tested in one fold at most.
        probe: settings.
        k: the k of acc@k.
        draws: bootstrap draws over items.
        seed: decides the draws.

    Raises:
        FusemixError: where scikit-learn is missing, training rows have one class only, or C is to be chosen and a
            fold has no validation rows.
    """
    fitted, chosen, notes = [], {}, []
    for fold in folds:
        c = probe.c
        if c is None:
            c, unfinished = _choose_c(rows, fold, probe.max_iter)
            if unfinished:
                notes.append(f"fold {fold.name}: {unfinished} of the classifiers tried to choose C did not converge")
        scores, converged = _logistic_scores(
            rows, np.concatenate([fold.train, fold.validation]), fold.test, c, probe.max_iter
        )
        if not converged:
            notes.append(
                f"fold {fold.name}: logistic regression with C = {c:.4g} did not converge in {probe.max_iter}"
                " iterations, its figures are those of an unfinished fit: raise max_iter or lower C"
            )
        fitted.append(class_ranks(scores, rows.labels[fold.test]))
        chosen[fold.name] = c
    for note in notes:
        warnings.warn(note, stacklevel=2)
    settings = {"C": chosen, "C chosen on validation": probe.c is None, "max_iter": probe.max_iter}
    return _summarise("linear probe", rows, folds, fitted, settings, notes, k=k, draws=draws, seed=seed)


def knn_probe(
    rows: LabelledRows,
    folds: Sequence[Fold],
    probe: NeighbourProbe = NeighbourProbe(),
    *,
    k: Sequence[int] = (1, 5),
    draws: int = 1000,
    seed: int = 0,
) -> ClassificationResult:
    """Let the nearest training and validation rows of each fold vote for the classes of its test rows.

    Args:
        rows: features and classes.
        folds: from `holdout` or `leave_one_out`; each row is tested in one fold at most.
        probe: settings.
        k: the k of acc@k.
        draws: bootstrap draws over items.
        seed: decides the draws.

    Raises:
        FusemixError: where a fold has fewer training rows than neighbours that vote.
    """
    fitted = []
    for fold in folds:
        train = np.concatenate([fold.train, fold.validation])
        fitted.append(class_ranks(_votes(rows, train, fold.test, probe), rows.labels[fold.test]))
    settings = {"neighbours": probe.k, "temperature": probe.temperature}
    return _summarise("kNN probe", rows, folds, fitted, settings, (), k=k, draws=draws, seed=seed)


def _summarise(
    method: str,
    rows: LabelledRows,
    folds: Sequence[Fold],
    fitted: Sequence[Ranks],
    settings: Mapping[str, object],
    notes: Sequence[str],
    *,
    k: Sequence[int],
    draws: int,
    seed: int,
) -> ClassificationResult:
    tested = np.concatenate([fold.test for fold in folds])
    ranks = Ranks(
        torch.arange(len(tested)),
        torch.cat([one.better for one in fitted]),
        torch.cat([one.tied for one in fitted]),
    )
    unseen = [_classes_not_in(rows, fold) for fold in folds]
    if any(unseen):
        most = max(unseen)
        notes = [*notes, f"up to {most} classes have test rows but no training rows: those rows count as missed"]
    of = rows.at(tested)
    return summarise(method, of, ranks, settings=settings, k=k, draws=draws, seed=seed, notes=notes)


def _classes_not_in(rows: LabelledRows, fold: Fold) -> int:
    known = np.concatenate([rows.labels[fold.train], rows.labels[fold.validation]])
    return len(np.setdiff1d(rows.labels[fold.test], known))


def _choose_c(rows: LabelledRows, fold: Fold, max_iter: int) -> tuple[float, int]:
    """Return the C with the best accuracy on the validation rows, and how many fits did not converge."""
    if len(fold.validation) == 0:
        raise FusemixError(f"fold {fold.name!r} has no validation rows to choose C on: give C, or a split 'val'")
    unfinished = 0

    def accuracy(step: int) -> float:
        nonlocal unfinished
        scores, converged = _logistic_scores(rows, fold.train, fold.validation, _c_of(step), max_iter)
        unfinished += not converged
        return float(recall_at(1, class_ranks(scores, rows.labels[fold.validation])).mean())

    return _c_of(best_step(accuracy)), unfinished


def best_step(accuracy: Callable[[int], float]) -> int:
    """Return the step of 0 to 96 that CLIP's search finds best, after 15 or fewer calls."""
    tried = {step: accuracy(step) for step in range(0, LAST_STEP + 1, COARSE_STEP)}
    width = COARSE_STEP // 2
    while width >= 1:
        best = _best(tried)
        for step in (best - width, best + width):
            if 0 <= step <= LAST_STEP and step not in tried:
                tried[step] = accuracy(step)
        width //= 2
    return _best(tried)


def _best(tried: dict[int, float]) -> int:
    return min(tried, key=lambda step: (-tried[step], step))


def _c_of(step: int) -> float:
    return float(10 ** (step / STEPS_OF_A_DECADE - LAST_STEP / STEPS_OF_A_DECADE / 2))


def _logistic_scores(
    rows: LabelledRows, train: Integers, test: Integers, c: float, max_iter: int
) -> tuple[Tensor, bool]:
    """Return (N, C) scores of the test rows, and whether L-BFGS converged."""
    with needs_extra("probes", "the linear probe"):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    known = np.unique(rows.labels[train])
    if len(known) < 2:
        raise FusemixError(
            f"the training rows of {rows.dataset.name!r} have {len(known)} of the {len(rows.names)} classes: a linear"
            " probe needs two at least"
        )
    model: Any = LogisticRegression(C=c, max_iter=max_iter)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.fit(rows.features[torch.from_numpy(train)].numpy(), rows.labels[train])
    # Whatever else it has to say is not ours to hide.
    for one in said:
        if not issubclass(one.category, ConvergenceWarning):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    found = torch.from_numpy(model.decision_function(rows.features[torch.from_numpy(test)].numpy())).double()
    if len(known) == 2:
        found = torch.stack([-found, found], dim=1)
    scores = torch.full((len(test), len(rows.names)), -torch.inf, dtype=torch.float64)
    scores[:, torch.from_numpy(known)] = found
    return scores, not any(issubclass(one.category, ConvergenceWarning) for one in said)


def _votes(rows: LabelledRows, train: Integers, test: Integers, probe: NeighbourProbe) -> Tensor:
    """Return (N, C) sums of the votes for each class; a class without a training row has -inf."""
    if len(train) < probe.k:
        raise FusemixError(
            f"{probe.k} neighbours are to vote, but {rows.dataset.name!r} has {len(train)} training rows: lower k"
        )
    queries, gallery = (rows.features[torch.from_numpy(places)] for places in (test, train))
    labels = torch.from_numpy(rows.labels[train])
    votes = torch.zeros(len(test), len(rows.names), dtype=torch.float64)
    for found in nearest_neighbours(queries, gallery, probe.k):
        weight = found.share
        if probe.temperature is not None:
            # Relative to the nearest, so that no temperature takes all votes to zero.
            weight = weight * torch.exp(-found.behind / probe.temperature)
        votes.index_put_((found.queries, labels[found.gallery]), weight, accumulate=True)
    votes[:, np.setdiff1d(np.arange(len(rows.names)), rows.labels[train])] = -torch.inf
    return votes
