"""Figures over folds: each gallery counts the same, however many queries it has."""

from __future__ import annotations

import numpy as np
import pytest

from fusemix.benchmarks.fold_figures import mean, median, weights

FOLDS = np.array([0, 0, 0, 0, 2, 2, 5])
VALUES = np.array([1.0, 2.0, 3.0, 10.0, 7.0, 8.0, 20.0])


def test_means_and_medians_are_those_of_the_folds() -> None:
    assert mean(VALUES, FOLDS) == pytest.approx((4 + 7.5 + 20) / 3)
    assert median(VALUES, FOLDS, "mid") == pytest.approx((2.5 + 7.5 + 20) / 3)
    assert median(VALUES, FOLDS, "floor") == pytest.approx((2 + 7 + 20) / 3)


def test_weighted_queries_have_the_mean_of_the_folds() -> None:
    assert (weights(FOLDS) * VALUES).mean() == pytest.approx(mean(VALUES, FOLDS))
    assert weights(np.zeros(4, np.int64)).tolist() == [1, 1, 1, 1]
