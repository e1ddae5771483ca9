"""Runs compared query by query: differences, tests, corrections, and runs that cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusemix.benchmarks.bootstrap import ItemBootstrap, holm, permutation_p
from fusemix.benchmarks.protocols import COCO_1K
from fusemix.benchmarks.results import StoredRun, read_retrieval, write_retrieval
from fusemix.benchmarks.retrieval import measure_pairs
from fusemix.benchmarks.run_comparison import RunComparison, Seeds, compare_runs
from fusemix.benchmarks.run_comparison_report import run_comparison_report
from fusemix.benchmarks.settings import BenchmarkSettings
from fusemix.errors import FusemixError
from fusemix.latents.paired import PairedLatents

from .small_world import identity_space, small_world

K = (1, 5)
SETTINGS = BenchmarkSettings(k=K, draws=10)
FEW = {"draws": 60, "permutations": 99}


def stored(folder: Path, name: str, split: PairedLatents, noise: float = 0.0, **settings: Any) -> StoredRun:
    """Measure the joint space that leaves latents alone, but for some noise in its maps, and read the result."""
    space = identity_space()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(len(name))
        for parameter in space.adapters.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    measured = measure_pairs(space, split, [("image", "text")], replace(SETTINGS, **settings))
    path = folder / f"{name}.json"
    write_retrieval(path, measured, split, {"run": name})
    return read_retrieval(path)


def alone(*runs: StoredRun) -> list[Seeds]:
    return [Seeds(run.name, (run,)) for run in runs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def split() -> PairedLatents:
    return small_world(test=60).split("test")


@pytest.fixture(scope="module")
def runs(folder: Path, split: PairedLatents) -> tuple[StoredRun, StoredRun, StoredRun]:
    return stored(folder, "a", split), stored(folder, "bb", split, 0.2), stored(folder, "ccc", split, 0.8)


@pytest.fixture(scope="module")
def comparison(runs: tuple[StoredRun, StoredRun, StoredRun]) -> RunComparison:
    return compare_runs(alone(*runs), **FEW)


def test_each_run_is_compared_with_the_first(comparison: RunComparison) -> None:
    assert [(pair.a, pair.b) for pair in comparison.pairs] == [("a", "bb"), ("a", "ccc")]
    assert [one.name for one in comparison.pairs[0].directions] == ["image to text", "text to image"]
    assert (comparison.protocol, comparison.dataset, comparison.split) == ("generic", "small", "test")


def test_differences_are_of_the_same_queries_with_intervals_over_items(
    comparison: RunComparison, runs: tuple[StoredRun, StoredRun, StoredRun]
) -> None:
    bootstrap = ItemBootstrap(len(runs[0].items), FEW["draws"], 0)
    for pair, other in zip(comparison.pairs, runs[1:], strict=True):
        for direction in pair.directions:
            one, two = (run.directions[direction.name] for run in (runs[0], other))
            assert list(direction.metrics) == ["R@1", "R@5", "MRR", "MedR"]
            for metric in ("R@1", "R@5", "MRR"):
                of = direction.metrics[metric]
                difference = two.metrics[metric] - one.metrics[metric]
                assert (of.a, of.b) == pytest.approx((one.metrics[metric].mean(), two.metrics[metric].mean()))
                assert of.difference.value == pytest.approx(difference.mean())
                expected = np.quantile(bootstrap.means(difference, one.items), [0.025, 0.975])
                assert [of.difference.low, of.difference.high] == pytest.approx(expected.tolist())
                assert of.p == permutation_p(difference, one.items, FEW["permutations"], 0)
            medians = [bootstrap.medians(of.ranks, of.items) for of in (one, two)]
            of = direction.metrics["MedR"]
            assert (of.a, of.b, of.p) == (np.median(one.ranks), np.median(two.ranks), None)
            expected = np.quantile(medians[1] - medians[0], [0.025, 0.975])
            assert [of.difference.low, of.difference.high] == pytest.approx(expected.tolist())


def test_p_values_are_corrected_for_all_that_is_tested(comparison: RunComparison) -> None:
    tested = [
        of
        for pair in comparison.pairs
        for direction in pair.directions
        for of in direction.metrics.values()
        if of.p is not None
    ]
    assert comparison.tests == len(tested) == 12
    assert [of.adjusted_p for of in tested] == holm([of.p for of in tested if of.p is not None])


def test_wins_ties_and_losses_are_those_of_the_ranks(
    comparison: RunComparison, runs: tuple[StoredRun, StoredRun, StoredRun]
) -> None:
    for direction in comparison.pairs[1].directions:
        one, two = (run.directions[direction.name].ranks for run in (runs[0], runs[2]))
        assert direction.wins == sum(b < a for a, b in zip(one, two, strict=True)) > 0
        assert direction.losses == sum(b > a for a, b in zip(one, two, strict=True)) > 0
        assert direction.wins + direction.ties + direction.losses == direction.queries == len(one)


def test_queries_that_changed_most_come_first_with_their_sources(
    comparison: RunComparison, runs: tuple[StoredRun, StoredRun, StoredRun], split: PairedLatents
) -> None:
    there, back = comparison.pairs[1].directions
    lost = [1 / query.b - 1 / query.a for query in there.lost]
    assert lost == sorted(lost)
    ranks = [run.directions["image to text"].ranks for run in (runs[0], runs[2])]
    assert lost[0] == pytest.approx((1 / ranks[1] - 1 / ranks[0]).min())
    assert all(query.b < query.a for query in there.gained)
    captions = {
        str(split.items[item]): {
            split["text"].sources[int(row)] for row in split["text"].restricted_to(torch.tensor([item])).rows
        }
        for item in range(len(split))
    }
    assert all(query.described_by in captions[query.item] for query in there.lost)
    assert all(query.source in captions[query.item] and not query.described_by for query in back.lost)


def test_a_run_does_not_differ_from_itself(runs: tuple[StoredRun, StoredRun, StoredRun]) -> None:
    comparison = compare_runs(alone(runs[0], runs[0]), **FEW)
    for direction in comparison.pairs[0].directions:
        assert (direction.wins, direction.losses, direction.gained, direction.lost) == (0, 0, (), ())
        for of in direction.metrics.values():
            assert (of.difference.value, of.difference.low, of.difference.high) == (0, 0, 0)
            assert of.p in (None, 1)


def test_seeds_are_averaged_for_each_query_first(runs: tuple[StoredRun, StoredRun, StoredRun]) -> None:
    first, second, third = runs
    comparison = compare_runs([Seeds("a", (first,)), Seeds("others", (second, third))], **FEW)
    for direction in comparison.pairs[0].directions:
        of = [run.directions[direction.name] for run in (second, third)]
        means = [one.metrics["MRR"].mean() for one in of]
        assert direction.metrics["MRR"].b == pytest.approx(np.mean(means))
        assert direction.seeds_of_b["MRR"] == pytest.approx(means)
        assert direction.seeds_of_a == {}
        assert direction.metrics["MedR"].b == np.median((of[0].ranks + of[1].ranks) / 2)
        difference = (of[0].metrics["R@1"] + of[1].metrics["R@1"]) / 2 - first.directions[direction.name].metrics[
            "R@1"
        ]
        assert direction.metrics["R@1"].p == permutation_p(difference, of[0].items, FEW["permutations"], 0)
    assert "seeds, lowest to highest" in run_comparison_report(comparison).text()


def test_folds_count_the_same_in_differences(tmp_path: Path, split: PairedLatents) -> None:
    coco = replace(split, dataset=replace(split.dataset, name="coco"))
    both = [stored(tmp_path, name, coco, noise, protocol="coco-1k") for name, noise in (("a", 0.0), ("b", 0.5))]
    comparison = compare_runs(alone(*both), **FEW)
    assert comparison.protocol == "coco-1k"
    uneven = False
    for direction in comparison.pairs[0].directions:
        one, two = (run.directions[direction.name] for run in both)
        difference = two.metrics["R@1"] - one.metrics["R@1"]
        folds = [difference[one.folds == fold].mean() for fold in range(COCO_1K.folds)]
        assert direction.metrics["R@1"].difference.value == pytest.approx(np.mean(folds))
        sizes = np.bincount(one.folds)
        weighted = difference / sizes[one.folds]
        assert direction.metrics["R@1"].p == permutation_p(weighted, one.items, FEW["permutations"], 0)
        uneven |= len(set(sizes)) > 1 and direction.metrics["R@1"].p != permutation_p(
            difference, one.items, FEW["permutations"], 0
        )
        assert direction.metrics["MedR"].a == np.mean(
            [np.floor(np.median(one.ranks[one.folds == fold])) for fold in range(COCO_1K.folds)]
        )
    assert uneven, "folds of different sizes, where it matters"


def test_the_report_fits_80_columns_and_goes_into_markdown(comparison: RunComparison) -> None:
    report = run_comparison_report(comparison, changed=2)
    lines = report.text().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "small, test split: 60 items, protocol generic"
    assert sum(line.startswith("image to text ") and "Holm" in line for line in lines) == 2
    assert "p adjusted for all 12 tests" in " ".join(report.text().split())
    assert "| image to text | A | B | B - A | p | Holm |" in report.markdown().splitlines()
    assert "most" not in run_comparison_report(comparison, changed=0).text()


def test_the_comparison_goes_through_json(comparison: RunComparison) -> None:
    read = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert read["pairs"][0]["directions"][0]["metrics"]["R@1"].keys() == {"a", "b", "difference", "p", "adjusted_p"}


def learned(run: StoredRun, *splits: str) -> StoredRun:
    return other_record(learned_from=list(splits))(run)


def test_runs_that_learned_from_other_splits_are_warned_of(runs: tuple[StoredRun, StoredRun, StoredRun]) -> None:
    a, b, c = runs
    told = compare_runs(alone(learned(a, "train"), learned(b, "train", "val"), learned(c, "train")), **FEW)
    assert told.warnings == (
        "bb learned from train and val, a from train: the difference is one of training data too",
    )
    assert "\nwarning: bb learned from train and val, a from train: " in run_comparison_report(told).text()
    assert compare_runs(alone(a, learned(b, "train")), **FEW).warnings == (), "an older result does not say"
    both = [Seeds("a", (learned(a, "train"), learned(b, "train", "val"))), Seeds("c", (learned(c, "val", "train"),))]
    assert compare_runs(both, **FEW).warnings == ()


def other_record(**changes: Any) -> Callable[[StoredRun], StoredRun]:
    return lambda run: replace(run, record={**run.record, **changes})


def other_direction(**changes: Any) -> Callable[[StoredRun], StoredRun]:
    def changed(run: StoredRun) -> StoredRun:
        of = run.directions["image to text"]
        return replace(run, directions={**run.directions, "image to text": replace(of, **changes)})

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_record(protocol={"name": "coco-5k"}), "the protocols are generic and coco-5k"),
        (other_record(dataset="coco"), "the datasets are 'small' and 'coco'"),
        (other_record(fingerprint="ab"), "the fingerprints are '' and 'ab'"),
        (other_record(split="val"), "the splits are 'test' and 'val'"),
        (lambda run: replace(run, items=run.items[1:]), "the items are not the same ones, 60 and 59"),
        (other_direction(gallery=7), "the galleries of image to text have"),
        (other_direction(sources=("x",)), "the queries of image to text are not the same ones,"),
        (lambda run: replace(run, directions={}), "they have no direction in common"),
    ],
    ids=["protocol", "dataset", "fingerprint", "split", "items", "gallery", "queries", "directions"],
)
def test_runs_that_were_not_measured_on_the_same_are_one_line(
    runs: tuple[StoredRun, StoredRun, StoredRun], change: Callable[[StoredRun], StoredRun], message: str
) -> None:
    with pytest.raises(FusemixError) as refused:
        compare_runs(alone(runs[0], change(runs[1])), **FEW)
    assert str(refused.value).startswith(f"a and bb cannot be compared: {message}")
    assert "\n" not in str(refused.value)
