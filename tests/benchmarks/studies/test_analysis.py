from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusemix.benchmarks.bootstrap import Interval
from fusemix.benchmarks.studies.analysis import (
    DRAWS,
    SEED,
    Difference,
    StudyResult,
    analyse,
    chosen_level,
    on_split,
)
from fusemix.benchmarks.studies.design import REFERENCES, Verdict
from fusemix.benchmarks.studies.measuring import SplitFigures
from fusemix.benchmarks.studies.running import run
from fusemix.errors import FusemixError

from .made_up import made_up
from .small_study import FUSE, SMALL, figures

QUERIES = [1, 3, 2, 1, 4, 1, 2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    run([SMALL], folder)
    return folder


def random_figures(seed: int) -> SplitFigures:
    rng = np.random.default_rng(seed)
    return figures([rng.random(sum(QUERIES)).tolist(), rng.random(sum(QUERIES)).tolist()], QUERIES)


def by_hand(seeds: Sequence[SplitFigures], base: Sequence[SplitFigures], metric: str) -> tuple[float, float, float]:
    """Draw items with replacement and average the differences of all of their queries, draw by draw."""
    rng = np.random.default_rng(SEED)
    per_item: list[list[list[float]]] = []
    for name in ("first to second", "second to first"):
        differences = [
            np.mean([mine.directions[name].metrics[metric][query] for mine in seeds])
            - np.mean([other.directions[name].metrics[metric][query] for other in base])
            for query in range(sum(QUERIES))
        ]
        ends = np.cumsum(QUERIES)
        per_item.append([list(differences[end - count : end]) for end, count in zip(ends, QUERIES, strict=True)])
    draws = []
    for _ in range(DRAWS):
        drawn = rng.integers(len(QUERIES), size=len(QUERIES))
        draws.append(np.mean([np.mean([value for item in drawn for value in of[item]]) for of in per_item]))
    value = np.mean([np.mean([value for item in of for value in item]) for of in per_item])
    return float(value), float(np.percentile(draws, 2.5)), float(np.percentile(draws, 97.5))


def test_a_paired_interval_is_that_of_drawing_items_one_by_one() -> None:
    mine, base = [random_figures(seed) for seed in (1, 2, 3)], [random_figures(seed) for seed in (4, 5, 6)]
    found = on_split(mine, base)
    assert found.difference is not None
    for interval, metric in ((found.difference.mrr, "MRR"), (found.difference.recall, "R@1")):
        assert (interval.value, interval.low, interval.high) == pytest.approx(by_hand(mine, base, metric), abs=1e-12)
    of_seeds = [
        np.mean(
            [
                one.directions[name].metrics["MRR"].mean() - other.directions[name].metrics["MRR"].mean()
                for name in one.directions
            ]
        )
        for one, other in zip(mine, base, strict=True)
    ]
    assert found.difference.of_seeds == pytest.approx(of_seeds)
    nothing = [figures([[0.0] * sum(QUERIES)] * 2, QUERIES)]
    plain = on_split(mine)
    assert (plain.mrr.value, plain.mrr.low, plain.mrr.high) == pytest.approx(by_hand(mine, nothing, "MRR"), abs=1e-12)
    assert plain.difference is None
    assert np.mean(plain.of_seeds) == pytest.approx(plain.mrr.value)


def test_pairing_finds_what_separate_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(200) * 0.8
    base, mine = (figures([(hard + added).tolist()] * 2, [1] * 200) for added in (0.0, 0.01))
    found = on_split([mine, mine], [base, base])
    assert found.difference is not None
    assert found.difference.verdict == "better"
    assert found.mrr.low < on_split([base]).mrr.value < found.mrr.high


@pytest.mark.parametrize(
    ("interval", "seeds", "verdict"),
    [
        ((0.02, 0.01, 0.03), (0.01, 0.03), "better"),
        ((0.02, 0.01, 0.03), (-0.001, 0.04), "open"),
        ((0.02, -0.01, 0.05), (0.01, 0.03), "open"),
        ((-0.02, -0.03, -0.01), (-0.01, -0.03), "worse"),
        ((-0.02, -0.03, -0.01), (-0.05, 0.01), "open"),
        ((-0.02, -0.05, 0.01), (-0.01, -0.03), "open"),
        ((0.0, 0.0, 0.0), (0.0, 0.0), "open"),
    ],
)
def test_a_difference_counts_where_its_interval_leaves_out_0_and_the_seeds_agree(
    interval: tuple[float, float, float], seeds: tuple[float, ...], verdict: Verdict
) -> None:
    assert Difference(Interval(*interval), Interval(0, 0, 0), seeds).verdict == verdict


def test_levels_measured_on_other_queries_are_refused() -> None:
    mine, base = figures([[1.0] * 3] * 2, [1, 2]), figures([[1.0] * 3] * 2, [2, 1])
    with pytest.raises(FusemixError, match="different queries"):
        on_split([mine], [base])


def test_a_study_is_analysed_from_its_runs(root: Path) -> None:
    result = analyse(SMALL, root)
    assert [level.name for level in result.levels] == ["with", "without"]
    assert [level.value for level in result.levels] == ["halves", "none"]
    assert [level.name for level in result.references] == list(REFERENCES)
    assert result.items == {"val": 30, "test": 40}
    assert result.baseline.splits["test"].difference is None
    [compared] = result.compared
    for split in ("val", "test"):
        with_, without = (level.splits[split] for level in result.levels)
        difference = without.difference
        assert difference is not None
        assert difference.mrr.value == pytest.approx(without.mrr.value - with_.mrr.value, abs=1e-12)
        assert len(with_.of_seeds) == len(difference.of_seeds) == 2
    assert (compared.items, compared.batch_size) == (120, 60)
    ceiling = result.references[-1]
    assert ceiling.items is None
    assert ceiling.shared == pytest.approx(1 / 1.04)
    assert len(result.machines) == 1


def test_the_baseline_may_stand_anywhere(root: Path) -> None:
    first, second = analyse(SMALL, root), analyse(replace(SMALL, base=1), root)
    assert (second.baseline.name, [level.name for level in second.compared]) == ("without", ["with"])
    one, other = first.levels[1].splits["val"].difference, second.levels[0].splits["val"].difference
    assert one is not None
    assert other is not None
    assert one.mrr.value == pytest.approx(-other.mrr.value)
    assert (one.mrr.low, one.mrr.high) == pytest.approx((-other.mrr.high, -other.mrr.low), abs=1e-12)


def test_a_result_goes_through_json(root: Path) -> None:
    result = analyse(SMALL, root)
    read = StudyResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    assert read == result


def test_missing_runs_are_counted(root: Path) -> None:
    with pytest.raises(FusemixError, match="the study small lacks 4 of its 7 runs: run it first"):
        analyse(replace(SMALL, fuse=replace(FUSE, steps=7)), root)


def test_validation_alone_chooses_and_only_what_is_shown_to_be_better() -> None:
    better, more, open_ = (0.02, 0.01, 0.03), (0.05, 0.02, 0.08), (0.09, -0.01, 0.2)
    assert chosen_level(made_up(val=[better, more, open_], test=[better, better, better])).name == "level 2"
    assert chosen_level(made_up(val=[open_], test=[better])).name == "base"
    assert chosen_level(made_up(val=[(-0.02, -0.03, -0.01)], test=[better])).name == "base"
