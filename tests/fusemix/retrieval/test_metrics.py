"""Metrics against all ways to break the ties, one by one."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import pytest
import torch

from fusemix.retrieval import (
    PositiveRanks,
    Ranks,
    average_precision_at,
    floored_median_rank,
    mean_rank,
    mean_reciprocal_rank,
    median_rank,
    mid_ranks,
    rankings,
    recall_at,
    reciprocal_ranks,
    true_recall_at,
)

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


@pytest.mark.parametrize(
    ("cases", "mean_of_ranks", "floored"),
    [
        ([(4, 0)], 5.0, 5.0),
        ([(9, 0), (0, 0)], 5.5, 5.0),
        ([(0, 0), (1, 0), (2, 0), (9, 0)], 4.0, 2.0),
        ([(0, 1)], 1.5, 1.0),
        ([(0, 0), (1, 0)], 1.5, 1.0),
    ],
)
def test_mean_rank_and_the_median_without_its_fraction(
    cases: list[tuple[int, int]], mean_of_ranks: float, floored: float
) -> None:
    assert mean_rank(of(*cases)) == mean_of_ranks
    assert floored_median_rank(of(*cases)) == floored


SCORES = [
    ([5, 4, 3, 2, 1], {0, 3}),
    ([2, 2, 2, 2], {1}),
    ([2, 2, 2, 2], {0, 1, 3}),
    ([3, 3, 1, 1, 1, 0], {0, 2, 4}),
    ([3, 3, 3, 3, 1, 1], {0, 1, 4, 5}),
    ([1, 2, 3], {0, 1, 2}),
    ([4, 4, 3, 3, 3, 1], {5}),
]


def positive_ranks(*queries: tuple[list[int], set[int]]) -> PositiveRanks:
    """Places of the positives of queries that have nothing to do with each other."""
    width = max(len(scores) for scores, _ in queries)
    gallery = torch.zeros(width, len(queries))
    for query, (scores, _) in enumerate(queries):
        gallery[: len(scores), query] = torch.tensor(scores, dtype=torch.float32)
        # Answers that this query does not have are below all that it has.
        gallery[len(scores) :, query] = -1
    pairs = torch.tensor([(query, answer) for query, (_, right) in enumerate(queries) for answer in right])
    return rankings(torch.eye(len(queries)), gallery, pairs, 1)[0].every


def orders(scores: list[int]) -> list[tuple[int, ...]]:
    """All orders of the answers from the highest score to the lowest."""
    ranked = sorted(scores, reverse=True)
    return [order for order in permutations(range(len(scores))) if [scores[answer] for answer in order] == ranked]


def average_precision(order: tuple[int, ...], right: set[int], k: int) -> Fraction:
    found, total = 0, Fraction(0)
    for place, answer in enumerate(order[:k], 1):
        if answer in right:
            found += 1
            total += Fraction(found, place)
    return total / len(right)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 10])
def test_true_recall_is_the_mean_over_all_tie_breakings(k: int) -> None:
    expected = [
        mean([Fraction(len(right & set(order[:k])), len(right)) for order in orders(scores)])
        for scores, right in SCORES
    ]
    assert true_recall_at(k, positive_ranks(*SCORES)).tolist() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 10])
def test_average_precision_is_the_mean_over_all_tie_breakings(k: int) -> None:
    expected = [mean([average_precision(order, right, k) for order in orders(scores)]) for scores, right in SCORES]
    assert average_precision_at(k, positive_ranks(*SCORES)).tolist() == pytest.approx(expected, abs=1e-15)


def test_with_one_positive_average_precision_is_its_reciprocal_rank_and_true_recall_is_recall() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, gallery = (torch.randint(-3, 4, (50, 2), generator=generator).float() for _ in range(2))
    ranking, _ = rankings(queries, gallery, torch.arange(50)[:, None].repeat(1, 2), 1)
    torch.testing.assert_close(average_precision_at(50, ranking.every), reciprocal_ranks(ranking.best))
    assert torch.equal(true_recall_at(5, ranking.every), recall_at(5, ranking.best))


def test_queries_without_a_positive_have_no_value() -> None:
    gallery, pairs = torch.tensor([[3.0], [2.0], [1.0]]), torch.tensor([[1, 0], [1, 1], [3, 2]])
    ranking, _ = rankings(torch.ones(5, 1), gallery, pairs, 1)
    assert true_recall_at(1, ranking.every).tolist() == [0.5, 0]
    assert average_precision_at(3, ranking.every).tolist() == pytest.approx([1, 1 / 3])
    assert ranking.best.queries.tolist() == [1, 3]


def test_five_captions_at_places_1_3_and_11() -> None:
    # 1/1 and 2/3 count, the rest comes after the tenth; five positives in all.
    scores = list(range(20, 0, -1))
    ranks = positive_ranks((scores, {0, 2, 10, 12, 19}))
    assert average_precision_at(10, ranks).tolist() == pytest.approx([(1 + 2 / 3) / 5])
    assert true_recall_at(10, ranks).tolist() == pytest.approx([2 / 5])


def test_ten_of_twenty_positives_among_the_first_ten_are_half_of_the_average_precision() -> None:
    ranks = positive_ranks((list(range(30, 0, -1)), set(range(20))))
    assert average_precision_at(10, ranks).tolist() == pytest.approx([0.5])
