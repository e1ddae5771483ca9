"""Figures over queries and then over folds, and their draws over items.

Where a protocol cuts the items into several galleries, a figure is the mean over these, each counting the same
however many queries it has.  With one fold it is the plain mean or median over queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from .bootstrap import Floats, ItemBootstrap

Integers = npt.NDArray[np.int64]


def mean(values: Floats, folds: Integers) -> float:
    """Return the mean of (M,) values of queries that were ranked in the galleries `folds`, (M,)."""
    return float(np.mean([values[of].mean() for of in _places(folds)]))


def mean_draws(values: Floats, items: Integers, folds: Integers, bootstrap: ItemBootstrap) -> Floats:
    """Return `mean` in each draw of items, (draws,); `items`, (M,), tells the queries' items."""
    return np.asarray(np.mean([bootstrap.means(values[of], items[of]) for of in _places(folds)], axis=0))


def median(ranks: Floats, folds: Integers, convention: Literal["mid", "floor"]) -> float:
    """Return the median of (M,) ranks by a protocol's convention."""
    return float(np.mean([_rounded(np.median(ranks[of]), convention) for of in _places(folds)]))


def median_draws(
    ranks: Floats, items: Integers, folds: Integers, convention: Literal["mid", "floor"], bootstrap: ItemBootstrap
) -> Floats:
    """Return `median` in each draw of items, (draws,)."""
    medians = [_rounded(bootstrap.medians(ranks[of], items[of]), convention) for of in _places(folds)]
    return np.asarray(np.mean(medians, axis=0))


def weights(folds: Integers) -> Floats:
    """Return what each query counts, (M,): the mean of values times these is their `mean`."""
    sizes = np.bincount(folds)
    return np.asarray(len(folds) / (sizes[folds] * (sizes > 0).sum()))


def _places(folds: Integers) -> Iterator[Integers]:
    for fold in np.unique(folds):
        yield np.flatnonzero(folds == fold)


def _rounded(medians: Floats | np.floating, convention: Literal["mid", "floor"]) -> Floats:
    return np.asarray(np.floor(medians) if convention == "floor" else medians)
