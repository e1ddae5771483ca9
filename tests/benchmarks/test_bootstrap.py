"""Bootstrap draws against loops that really resample, and tests by permutation against ones of all signs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from fusemix.benchmarks.bootstrap import Floats, Integers, Interval, ItemBootstrap, holm, permutation_p


def queries(seed: int, count: int, items: int) -> tuple[Floats, Integers]:
    """Values with many ties, and an item for each query; some items have several queries, some none."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 9, count) / 2, rng.integers(0, items, count)


def resampled(values: Floats, item_of_query: Integers, counts: Floats) -> Floats:
    drawn = [values[item_of_query == item] for item, count in enumerate(counts) for _ in range(int(count))]
    return np.concatenate(drawn)


@pytest.mark.parametrize(("count", "items", "draws"), [(1, 1, 3), (12, 5, 70), (31, 10, 64), (50, 10, 65)])
def test_means_and_medians_are_those_of_the_resampled_queries(count: int, items: int, draws: int) -> None:
    values, of = queries(count, count, items)
    bootstrap = ItemBootstrap(items, draws, seed=0)
    samples = [resampled(values, of, counts) for counts in bootstrap.weights]
    np.testing.assert_allclose(bootstrap.means(values, of), [sample.mean() for sample in samples], rtol=1e-12)
    np.testing.assert_array_equal(bootstrap.medians(values, of), [np.median(sample) for sample in samples])


def test_several_metrics_at_once_are_those_of_each() -> None:
    (first, of), (second, _) = queries(0, 40, 10), queries(1, 40, 10)
    bootstrap = ItemBootstrap(10, 50, seed=0)
    both = bootstrap.means(np.stack([first, second]), of)
    np.testing.assert_array_equal(both, [bootstrap.means(first, of), bootstrap.means(second, of)])


@pytest.mark.parametrize("count", [2, 3, 99, 100, 101, 400])
def test_medians_of_values_that_all_differ(count: int) -> None:
    rng = np.random.default_rng(count)
    values, of = rng.permutation(count).astype(np.float64), rng.integers(0, 7, count)
    of[0] = 6
    bootstrap = ItemBootstrap(7, 40, seed=2)
    drawn = [counts for counts in bootstrap.weights if counts[of].sum() > 0]
    bootstrap.weights = np.stack(drawn)
    expected = [np.median(resampled(values, of, counts)) for counts in drawn]
    np.testing.assert_array_equal(bootstrap.medians(values, of), expected)


def test_every_draw_has_as_many_items_as_there_are() -> None:
    weights = ItemBootstrap(20, 500, seed=0).weights
    assert weights.shape == (500, 20)
    assert (weights.sum(axis=1) == 20).all()
    # With replacement each item is drawn Binomial(20, 1/20) times.
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(19 / 20, rel=0.05)


def test_the_seed_decides_the_draws() -> None:
    first, again, other = (ItemBootstrap(30, 10, seed).weights for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def test_draws_are_paired() -> None:
    bootstrap = ItemBootstrap(10, 50, seed=0)
    (mine, of), (base, _) = queries(0, 40, 10), queries(1, 40, 10)
    np.testing.assert_allclose(
        bootstrap.means(mine - base, of), bootstrap.means(mine, of) - bootstrap.means(base, of), atol=1e-12
    )


def test_an_interval_holds_95_of_100_draws() -> None:
    interval = Interval.of(0.25, np.linspace(0, 1, 1001))
    assert [interval.value, interval.low, interval.high] == pytest.approx([0.25, 0.025, 0.975])


@pytest.mark.parametrize("queries_of_item", [1, 5])
def test_intervals_cover_the_truth_though_queries_of_an_item_are_alike(queries_of_item: int) -> None:
    rng = np.random.default_rng(0)
    items, repeats = 60, 400
    bootstrap = ItemBootstrap(items, 300, seed=1)
    of = np.repeat(np.arange(items), queries_of_item)
    covered = 0
    for _ in range(repeats):
        values = np.repeat(rng.exponential(size=items), queries_of_item)
        interval = Interval.of(values.mean(), bootstrap.means(values, of))
        covered += interval.low <= 1 <= interval.high
    # A bootstrap over rows would cover about 0.6 with five alike.
    assert 0.89 <= covered / repeats <= 0.98


def slow_p(difference: Floats, of: Integers) -> float:
    """The share of all ways to swap whole items whose mean difference is as far from zero."""
    items = sorted(set(of.tolist()))
    observed, at_least, ways = abs(difference.mean()), 0, 0
    for signs in product((1, -1), repeat=len(items)):
        sign_of = dict(zip(items, signs, strict=True))
        swapped = np.array([sign_of[item] * value for item, value in zip(of.tolist(), difference, strict=True)])
        at_least += abs(swapped.mean()) >= observed - 1e-12
        ways += 1
    return at_least / ways


@pytest.mark.parametrize("items", [1, 2, 5, 8])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_few_items_are_tested_with_all_signs(items: int, shift: float) -> None:
    rng = np.random.default_rng(items)
    of = np.concatenate([np.arange(items), rng.integers(0, items, 2 * items)])
    # Tenths add up inexactly, so that equal sums differ in their last bits.
    difference = (rng.integers(-3, 4, len(of)) / 10) + shift
    assert permutation_p(difference, of, draws=10, seed=0) == slow_p(difference, of)


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.6])
def test_many_items_are_tested_with_random_signs_that_come_close_to_all(shift: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(4)
    of_item = rng.normal(size=14) + shift
    difference = np.repeat(of_item / 3, 3) + np.tile([0.1, -0.3, 0.2], 14)
    found = permutation_p(difference, np.repeat(np.arange(14), 3), draws=20_000, seed=0)
    exact = stats.permutation_test(
        (of_item,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert found == pytest.approx(exact.pvalue, abs=4 * np.sqrt(exact.pvalue * (1 - exact.pvalue) / 20_000) + 1e-4)


def test_p_is_never_zero_and_the_seed_decides_it() -> None:
    of = np.arange(40)
    assert permutation_p(np.ones(40), of, draws=99, seed=0) == 0.01
    noise = np.random.default_rng(0).normal(size=40) + 0.2
    first, again, other = (permutation_p(noise, of, draws=500, seed=seed) for seed in (3, 3, 4))
    assert first == again != other


def test_no_difference_at_all_is_no_evidence() -> None:
    assert permutation_p(np.zeros(30), np.arange(30), draws=50, seed=0) == 1


def test_rows_of_an_item_are_no_independent_evidence() -> None:
    # One row of ten alike is as good as all ten.
    noise = np.random.default_rng(1).normal(size=20) + 0.3
    of = np.repeat(np.arange(20), 10)
    assert permutation_p(np.repeat(noise, 10), of, 400, 0) == permutation_p(noise, np.arange(20), 400, 0)


def test_exchangeable_models_are_found_different_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(5)
    of = np.repeat(np.arange(25), 4)
    found = [permutation_p(np.repeat(rng.normal(size=25), 4), of, 99, seed) <= 0.1 for seed in range(400)]
    # Rows swapped one by one would find a difference in about half of the cases.
    assert 0.06 <= np.mean(found) <= 0.14


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([], []),
        ([0.2], [0.2]),
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),
        ([0.5, 0.9, 0.01], [1.0, 1.0, 0.03]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_p_values_are_adjusted_in_the_manner_of_holm(p_values: list[float], expected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(expected)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_adjusted_p_values_reject_what_the_step_down_rule_rejects(level: float) -> None:
    rng = np.random.default_rng(6)
    for _ in range(50):
        p_values = (rng.random(int(rng.integers(1, 8))) ** 4).tolist()
        rejected: set[int] = set()
        for place in np.argsort(p_values).tolist():
            if p_values[place] > level / (len(p_values) - len(rejected)):
                break
            rejected.add(place)
        assert {place for place, p in enumerate(holm(p_values)) if p <= level} == rejected
