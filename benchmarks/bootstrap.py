"""Intervals by bootstrap over whole items.

The rows of an item (five captions of a picture) are not independent, so items are drawn, not rows.  The gallery and
the model stay fixed: the interval is conditional on both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
DRAWS_AT_ONCE = 64

Floats = npt.NDArray[np.float64]


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

    def means(self, values: Floats, item_of_query: npt.NDArray[np.int64]) -> Floats:
        """Return the mean over queries in each draw, (draws,).

        Args:
            values: (M,) a metric of each query.
            item_of_query: (M,) the item that each query belongs to.
        """
        items = self.weights.shape[1]
        sums = self.weights @ np.bincount(item_of_query, values, items)
        counts = self.weights @ np.bincount(item_of_query, minlength=items)
        return np.asarray(sums / np.maximum(counts, 1))

    def medians(self, values: Floats, item_of_query: npt.NDArray[np.int64]) -> Floats:
        """Return the median over queries in each draw, (draws,), the mean of the middle two where they are even."""
        order = np.argsort(values, kind="stable")
        ordered, items = values[order], item_of_query[order]
        medians = []
        for start in range(0, len(self.weights), DRAWS_AT_ONCE):
            running = self.weights[start : start + DRAWS_AT_ONCE][:, items].cumsum(axis=1)
            total = running[:, -1]
            lower = np.array([np.searchsorted(r, np.ceil(t / 2)) for r, t in zip(running, total, strict=True)])
            upper = np.array([np.searchsorted(r, np.floor(t / 2) + 1) for r, t in zip(running, total, strict=True)])
            last = len(ordered) - 1
            medians.append((ordered[np.minimum(lower, last)] + ordered[np.minimum(upper, last)]) / 2)
        return np.concatenate(medians)
