"""Metrics against all ways to break the ties, one by one."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import pytest
import torch

from fusemix.retrieval import Ranks, mean_reciprocal_rank, median_rank, recall_at, reciprocal_ranks
from fusemix.retrieval.metrics import mid_ranks

CASES = [(better, tied) for better in range(6) for tied in range(5)]


def of(*cases: tuple[int, int]) -> Ranks:
    """Ranks of one query per (better, tied)."""
    better, tied = torch.tensor(cases, dtype=torch.int64).T
    return Ranks(torch.arange(len(cases)), better, tied)


def places(better: int, tied: int) -> list[int]:
    """The positive's rank in each order of the answers that tie, itself (0) among them."""
    return [better + 1 + order.index(0) for order in permutations(range(tied + 1))]


def mean(values: list[Fraction]) -> float:
    return float(sum(values, Fraction(0)) / len(values))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 10])
def test_recall_is_the_mean_over_all_tie_breakings(k: int) -> None:
    expected = [mean([Fraction(place <= k) for place in places(*case)]) for case in CASES]
    assert recall_at(k, of(*CASES)).tolist() == pytest.approx(expected, abs=1e-15)


def test_reciprocal_rank_is_the_mean_over_all_tie_breakings() -> None:
    expected = [mean([Fraction(1, place) for place in places(*case)]) for case in CASES]
    assert reciprocal_ranks(of(*CASES)).tolist() == pytest.approx(expected, rel=1e-12)
    assert mean_reciprocal_rank(of(*CASES)) == pytest.approx(sum(expected) / len(expected), rel=1e-12)


def test_reciprocal_rank_stays_exact_in_large_galleries() -> None:
    better, tied = 1_000_000, 1000
    expected = sum(1 / r for r in range(better + 1, better + tied + 2)) / (tied + 1)
    assert float(reciprocal_ranks(of((better, tied)))) == pytest.approx(expected, rel=1e-7)


def test_mid_rank_is_the_mean_over_all_tie_breakings() -> None:
    expected = [mean([Fraction(place) for place in places(*case)]) for case in CASES]
    assert mid_ranks(of(*CASES)).tolist() == expected


def test_a_constant_scorer_gets_chance() -> None:
    constant = of((0, 99))
    assert float(recall_at(10, constant)) == pytest.approx(0.1)
    assert median_rank(constant) == 50.5


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ([(4, 0)], 5.0),
        ([(9, 0), (0, 0), (1, 0)], 2.0),
        ([(9, 0), (0, 0), (1, 0), (2, 0)], 2.5),
        ([(0, 1)], 1.5),
        ([(0, 1), (1, 0)], 1.75),
    ],
)
def test_median_takes_the_mean_of_the_middle_two(cases: list[tuple[int, int]], expected: float) -> None:
    assert median_rank(of(*cases)) == expected
