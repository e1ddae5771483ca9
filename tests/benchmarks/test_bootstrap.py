"""Bootstrap draws against loops that really resample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from fusemix.benchmarks.bootstrap import Floats, Interval, ItemBootstrap

Items = npt.NDArray[np.int64]


def queries(seed: int, count: int, items: int) -> tuple[Floats, Items]:
    """Values with many ties, and an item for each query; some items have several queries, some none."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 9, count) / 2, rng.integers(0, items, count)


def resampled(values: Floats, item_of_query: Items, counts: Floats) -> Floats:
    drawn = [values[item_of_query == item] for item, count in enumerate(counts) for _ in range(int(count))]
    return np.concatenate(drawn)


@pytest.mark.parametrize(("count", "items", "draws"), [(1, 1, 3), (12, 5, 70), (31, 10, 64), (50, 10, 65)])
def test_means_and_medians_are_those_of_the_resampled_queries(count: int, items: int, draws: int) -> None:
    values, of = queries(count, count, items)
    bootstrap = ItemBootstrap(items, draws, seed=0)
    samples = [resampled(values, of, counts) for counts in bootstrap.weights]
    np.testing.assert_allclose(bootstrap.means(values, of), [sample.mean() for sample in samples], rtol=1e-12)
    np.testing.assert_array_equal(bootstrap.medians(values, of), [np.median(sample) for sample in samples])


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
