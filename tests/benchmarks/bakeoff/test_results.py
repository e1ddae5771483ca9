"""Differences and their p values against small cases that are counted by hand."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

from fusemix.benchmarks.bakeoff.results import Baked, Bakeoff, Measured, Queries, Trial, best, summarised
from fusemix.benchmarks.bakeoff.settings import BakeoffSettings
from fusemix.benchmarks.bootstrap import Floats
from fusemix.benchmarks.protocols import GENERIC

from .baked import DIRECTIONS, MEASURED, WORLD

# Two queries of each of the first eight test items.
ITEMS = np.repeat(np.arange(8), 2)
# The first three of them in a gallery of their own.
FOLDS = (ITEMS >= 3).astype(np.int64)
CHOSEN = Trial({"penalty": 1.0}, 0.5, 1.0)


def run(seed: int) -> Measured:
    rng = np.random.default_rng(seed)
    return Measured(
        seed,
        {
            direction: Queries(ITEMS, FOLDS, {"R@1": rng.integers(2, size=16).astype(float)}, 40, 0, 0.025, 0.0)
            for direction in DIRECTIONS
        },
    )


def baked() -> tuple[list[Baked], Bakeoff]:
    cells = [
        Baked("ridge", 1.0, (CHOSEN,), (run(0),)),
        Baked("cca", 1.0, (CHOSEN,), (run(1), run(2))),
        Baked("fusemix", 1.0, (CHOSEN,), (run(3), run(4), run(5))),
    ]
    settings = BakeoffSettings(("ridge", "cca", "fusemix"), (1.0,))
    about = {"ridge": "a", "cca": "b", "fusemix": "c"}
    return cells, summarised(WORLD, ("image", "text"), settings, MEASURED, GENERIC, about, cells)


def over_folds(values: Floats) -> float:
    return float((values[:6].mean() + values[6:].mean()) / 2)


def test_differences_are_paired_and_their_p_values_are_exact_and_adjusted() -> None:
    cells, result = baked()
    means = [
        {way: np.mean([one.directions[way].metrics["R@1"] for one in cell.runs], axis=0) for way in DIRECTIONS}
        for cell in cells
    ]
    raw = {}
    for number, way in product(range(2), DIRECTIONS):
        difference = means[number][way] - means[2][way]
        of_item = np.bincount(ITEMS, difference) / np.array(3 * [6.0] + 5 * [10.0])
        sums = [abs(np.dot(signs, of_item)) for signs in product((1, -1), repeat=8)]
        raw[number, way] = np.mean(np.array(sums) >= abs(of_item.sum()) - 1e-9)
        found = result.cells[number].difference[way].interval
        assert found.value == pytest.approx(over_folds(difference))
        assert found.low <= found.value <= found.high
    running = 0.0
    for done, (number, way) in enumerate(sorted(raw, key=raw.__getitem__)):
        running = max(running, min((4 - done) * raw[number, way], 1))
        assert result.cells[number].difference[way].p == pytest.approx(running)
    assert result.cells[2].difference == {}


def test_seconds_and_figures_are_means_over_the_runs() -> None:
    cells, result = baked()
    cca, runs = result.cell("cca", 1.0), cells[1].runs
    assert (cca.runs, cca.seconds, cca.tuning_seconds) == (2, 1.5, 1.0)
    for way in DIRECTIONS:
        of_seeds = [over_folds(one.directions[way].metrics["R@1"]) for one in runs]
        assert cca.of_seeds[way]["R@1"] == pytest.approx(of_seeds)
        assert cca.metrics[way]["R@1"].value == pytest.approx(np.mean(of_seeds))


def test_without_fusemix_nothing_is_compared() -> None:
    cells, _ = baked()
    settings = BakeoffSettings(("ridge", "cca"), (1.0,))
    result = summarised(WORLD, ("image", "text"), settings, MEASURED, GENERIC, {"ridge": "", "cca": ""}, cells[:2])
    assert [cell.difference for cell in result.cells] == [{}, {}]


def test_of_equal_trials_the_first_is_chosen() -> None:
    trials = [Trial({"penalty": penalty}, mrr, 1.0) for penalty, mrr in ((1.0, 0.2), (2.0, 0.3), (3.0, 0.3))]
    assert best(trials) is trials[1]


def test_a_run_is_read_as_it_was_written() -> None:
    written = run(0).to_dict()
    again = Measured.from_dict(json.loads(json.dumps(written)))
    assert again.to_dict() == written
    assert again.directions[DIRECTIONS[0]].items.dtype == np.int64
