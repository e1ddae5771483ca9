"""A thousand bootstrap draws of all metrics of a direction beside a loop that resamples the queries of each draw."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusemix.benchmarks.bootstrap import Floats, Integers, ItemBootstrap

from .measure import in_turn

QUERIES_OF_ITEM = 5
MEANS = 5


def plain_loop(means: Floats, ranks: Floats, item_of_query: Integers, items: int, draws: int) -> Callable[[], None]:
    """Return a function that draws items, gathers their queries, and takes the metrics of what it gathered."""
    rows_of = np.split(np.argsort(item_of_query, kind="stable"), np.bincount(item_of_query).cumsum()[:-1])

    def run() -> None:
        rng = np.random.default_rng(0)
        for _ in range(draws):
            drawn = np.concatenate([rows_of[item] for item in rng.integers(items, size=items)])
            means[:, drawn].mean(axis=1)
            np.median(ranks[drawn])

    return run


def run(*, quick: bool) -> dict[str, object]:
    """Measure, print the ratio, and return it."""
    items, draws = (200, 50) if quick else (5000, 1000)
    rng = np.random.default_rng(0)
    item_of_query = np.repeat(np.arange(items), QUERIES_OF_ITEM)
    means = rng.random((MEANS, len(item_of_query)))
    ranks = np.floor(rng.lognormal(2, 2, len(item_of_query))) + 1

    def ours() -> None:
        bootstrap = ItemBootstrap(items, draws, seed=0)
        bootstrap.means(means, item_of_query)
        bootstrap.medians(ranks, item_of_query)

    ratio = in_turn(ours, plain_loop(means, ranks, item_of_query, items, draws))
    print(
        f"{draws} draws over {len(item_of_query)} queries of {items} items, {MEANS} means and a median:"
        f" {ratio} a loop that resamples"
    )
    return {
        "queries": len(item_of_query),
        "items": items,
        "draws": draws,
        "time_ratio": ratio.value,
        "seconds": {"bootstrap": ratio.ours, "loop": ratio.plain},
    }
