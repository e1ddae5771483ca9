"""Intervals by bootstrap and tests by permutation, both over whole items.

The rows of an item (five captions of a picture) are not independent, so items are drawn or swapped, not rows.  The
gallery and the model stay fixed: an interval is conditional on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import isqrt

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
ENUMERATED_ITEMS = 12
DRAWS_AT_ONCE = 64
# Sums of the same numbers in another order differ by less, in parts of the sum of their sizes.
ROUNDING = 1e-12

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws: Floats) -> Interval:
        """Take the percentiles of bootstrap draws."""
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(float(value), float(low), float(high))


class ItemBootstrap:
    """Draws of items with replacement, the same for all metrics of a split, so that differences are paired.

    Args:
        items: number of items.
        draws: number of draws.
        seed: decides the draws.
    """

    def __init__(self, items: int, draws: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.weights = np.stack(
            [np.bincount(rng.integers(items, size=items), minlength=items) for _ in range(draws)]
        ).astype(np.float64)

    def means(self, values: Floats, item_of_query: Integers) -> Floats:
        """Return the mean over queries in each draw, (draws,), or (metrics, draws) of several metrics.

        Args:
            values: (M,) a metric of each query, or (metrics, M).
            item_of_query: (M,) the item that each query belongs to.
        """
        items = self.weights.shape[1]
        sums = np.stack([np.bincount(item_of_query, metric, items) for metric in np.atleast_2d(values)])
        counts = self.weights @ np.bincount(item_of_query, minlength=items)
        means = np.stack([self.weights @ metric for metric in sums]) / np.maximum(counts, 1)
        return np.asarray(means if values.ndim > 1 else means[0])

    def medians(self, values: Floats, item_of_query: Integers) -> Floats:
        """Return the median over queries in each draw, (draws,), the mean of the middle two where they are even."""
        order = np.argsort(values, kind="stable")
        ordered, items = values[order], item_of_query[order]
        # The place is sought among blocks of queries, then in its block: no draw counts through all queries.
        size = isqrt(len(items)) + 1
        blocks = -(-len(items) // size)
        of_block = np.arange(len(items)) // size * self.weights.shape[1] + items
        queries = np.bincount(of_block, minlength=blocks * self.weights.shape[1]).reshape(blocks, -1)
        running = (self.weights @ queries.T).cumsum(axis=1)

        def at(place: Floats) -> Floats:
            block = np.minimum((running < place[:, None]).sum(axis=1), blocks - 1)
            inside = np.minimum(block[:, None] * size + np.arange(size), len(items) - 1)
            counts = np.take_along_axis(self.weights, items[inside], axis=1).cumsum(axis=1)
            counts += np.where(block > 0, np.take_along_axis(running, block[:, None] - 1, axis=1)[:, 0], 0)[:, None]
            found = block * size + (counts < place[:, None]).sum(axis=1)
            return np.asarray(ordered[np.minimum(found, len(items) - 1)])

        total = running[:, -1]
        return (at(np.ceil(total / 2)) + at(np.floor(total / 2) + 1)) / 2


def permutation_p(difference: Floats, item_of_query: Integers, draws: int, seed: int) -> float:
    """Return how probable a mean difference as far from zero would be if the two models were exchangeable.

    In each draw both models change places, or not, in all queries of an item at once: a sign per item, as in the
    paired randomisation test (Smucker, Allan and Carterette, CIKM 2007).  The test is two-sided, and counts the
    data themselves as a draw, so that p is never 0 and errs to the safe side.  Up to 12 items all signs are
    enumerated and p is exact.

    Args:
        difference: (M,) a metric of one model minus that of the other on the same query.
        item_of_query: (M,) the item that each query belongs to.
        draws: how many random assignments of signs.
        seed: decides them.
    """
    of_item = np.bincount(item_of_query, difference)
    # An item without a difference has no say.
    of_item = of_item[of_item != 0]
    least = abs(of_item.sum()) - ROUNDING * np.abs(of_item).sum()
    if len(of_item) <= ENUMERATED_ITEMS:
        signs = np.array(list(product((1.0, -1.0), repeat=len(of_item))))
        return float(np.mean(np.abs(signs @ of_item) >= least))
    rng = np.random.default_rng(seed)
    at_least = 0
    for start in range(0, draws, DRAWS_AT_ONCE):
        flips = rng.integers(2, size=(min(DRAWS_AT_ONCE, draws - start), len(of_item)), dtype=np.int8)
        at_least += int((np.abs((1.0 - 2.0 * flips) @ of_item) >= least).sum())
    return (1 + at_least) / (1 + draws)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for being several, in their order: any below a level may be called significant.

    The step-down method of Holm (Scandinavian Journal of Statistics 1979) keeps the chance of any false finding
    among all of them below that level, however they depend on each other.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for done, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - done) * p_values[place]))
        adjusted[place] = largest
    return adjusted
