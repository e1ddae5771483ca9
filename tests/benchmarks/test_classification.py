"""Accuracies against their definition: the right class's place in random orders of the classes that tie."""

from __future__ import annotations

import json
from itertools import permutations
from statistics import stdev

import numpy as np
import pytest
import torch

from fusemix.benchmarks.bootstrap import ItemBootstrap
from fusemix.benchmarks.classification import class_ranks, per_class_recall, summarise
from fusemix.retrieval.ranks import Ranks

from .labelled_world import Floats, labelled


def expected_hit(scores: Floats, label: int, k: int) -> float:
    """The part of all orders of the classes, sorted by score, that have the right one among the first k."""
    orders = [sorted(order, key=lambda c: -scores[c]) for order in permutations(range(len(scores)))]
    return float(np.mean([label in order[:k] for order in orders]))


def ranks_of(better: list[int], tied: list[int]) -> Ranks:
    return Ranks(torch.arange(len(better)), torch.tensor(better), torch.tensor(tied))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_accuracy_is_an_expectation_over_the_orders_of_what_ties(k: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(3, size=(40, 6)).astype(np.float64)
    labels = rng.integers(6, size=40)
    result = summarise(
        "x",
        labelled(scores, labels.tolist(), classes=6),
        class_ranks(torch.from_numpy(scores), labels),
        settings={},
        k=(k,),
        draws=10,
    )
    each = [expected_hit(row, label, k) for row, label in zip(scores, labels, strict=True)]
    assert result.metrics[f"acc{k}"].value == pytest.approx(np.mean(each), abs=1e-12)
    ties = [(row == row[label]).sum() > 1 for row, label in zip(scores, labels, strict=True)]
    assert result.tie_rate == pytest.approx(np.mean(ties))


def test_a_constant_classifier_has_chance_level() -> None:
    labels = np.array([0, 1, 1, 3])
    rows = labelled(np.zeros((4, 2)), labels.tolist(), classes=8)
    result = summarise("x", rows, class_ranks(torch.zeros(4, 8), labels), settings={}, draws=10)
    assert {
        name: interval.value for name, interval in result.metrics.items() if name in result.chance
    } == result.chance
    assert result.chance == {"acc1": 1 / 8, "acc5": 5 / 8}
    assert result.tie_rate == 1


def test_scores_that_differ_by_rounding_tie() -> None:
    scores = torch.tensor(
        [[0.1 + 0.2, 0.3, 0.2], [1e6, 1e6 + 1e-3, 0.0], [0.5, 0.5 + 1e-7, 0.0]], dtype=torch.float64
    )
    found = class_ranks(scores, np.array([1, 0, 0]))
    assert (found.better.tolist(), found.tied.tolist()) == ([0, 1, 1], [1, 0, 0])


def test_a_class_that_the_classifier_does_not_know_is_missed() -> None:
    scores = torch.tensor([[-torch.inf, 1.0, -torch.inf], [-torch.inf, -5.0, -torch.inf]])
    found = class_ranks(scores, np.array([2, 1]))
    rows = labelled(np.zeros((2, 1)), [2, 1], classes=3)
    result = summarise("x", rows, found, settings={}, k=(1, 2), draws=10)
    assert (found.better.tolist(), found.tied.tolist()) == ([3, 0], [0, 0])
    assert result.metrics["acc2"].value == 0.5


def test_mean_per_class_recall_weighs_classes_alike() -> None:
    labels = np.array([0, 0, 0, 0, 1, 4])
    hits = np.array([1, 1, 1, 0, 0, 0.5])
    assert per_class_recall(hits, labels) == pytest.approx((0.75 + 0 + 0.5) / 3)


def test_classes_without_rows_are_counted_and_said() -> None:
    rows = labelled(np.zeros((3, 1)), [0, 0, 5], classes=7)
    result = summarise("x", rows, ranks_of([0, 0, 3], [0, 0, 0]), settings={}, draws=10, notes=["more"])
    assert result.classes_without_rows == 5
    assert result.notes == (
        "5 of 7 classes have no row ('b', 'c', 'd', ...): they are left out of the mean per-class recall",
        "more",
    )
    assert result.metrics["mean_per_class_recall"].value == 0.5
    full = labelled(np.zeros((2, 1)), [0, 1], classes=2)
    assert summarise("x", full, ranks_of([0, 1], [0, 0]), settings={}, draws=10).notes == ()


def test_an_accuracy_that_says_nothing_is_left_out() -> None:
    rows = labelled(np.zeros((2, 1)), [0, 1], classes=5)
    result = summarise("x", rows, ranks_of([0, 1], [0, 0]), settings={}, draws=10)
    assert set(result.metrics) == {"acc1", "mean_per_class_recall"}
    assert set(result.chance) == {"acc1"}


def test_intervals_are_those_of_a_bootstrap_over_items() -> None:
    rng = np.random.default_rng(1)
    labels, items = rng.integers(4, size=60), np.sort(rng.choice(np.arange(100, 125), 60))
    labels[7] = 4  # a class that some draws miss
    better = rng.integers(3, size=60)
    rows = labelled(np.zeros((60, 1)), labels.tolist(), classes=5, items=items.tolist())
    result = summarise("x", rows, ranks_of(better.tolist(), [0] * 60), settings={}, k=(1, 2), draws=300, seed=3)
    ids = sorted(set(items))
    drawn: dict[str, list[float]] = {"acc1": [], "acc2": [], "mean_per_class_recall": []}
    for weights in ItemBootstrap(len(ids), 300, 3).weights:
        places = [
            p for w, item in zip(weights, ids, strict=True) for p in np.flatnonzero(items == item).tolist() * int(w)
        ]
        drawn["acc1"].append((better[places] < 1).mean())
        drawn["acc2"].append((better[places] < 2).mean())
        recalls = [(better[places] < 1)[labels[places] == c].mean() for c in sorted(set(labels[places]))]
        drawn["mean_per_class_recall"].append(np.mean(recalls))
    for name, draws in drawn.items():
        interval = result.metrics[name]
        assert [interval.low, interval.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]).tolist())
        assert interval.low < interval.value < interval.high
    assert (result.rows, result.items, result.draws) == (60, len(ids), 300)


def test_folds_have_their_own_figures_and_their_mean() -> None:
    rng = np.random.default_rng(2)
    names = [f"fold{number}" for number in (1, 2, 10)]
    splits = rng.choice(names, 50).tolist()
    labels, better = rng.integers(3, size=50), rng.integers(2, size=50)
    rows = labelled(np.zeros((50, 1)), labels.tolist(), classes=3, splits=splits)
    result = summarise("x", rows, ranks_of(better.tolist(), [0] * 50), settings={}, draws=10)
    assert list(result.folds) == names
    for name in names:
        inside = np.array([split == name for split in splits])
        hits, of = better[inside] < 1, labels[inside]
        assert result.folds[name]["acc1"] == pytest.approx(hits.mean())
        recall = np.mean([hits[of == c].mean() for c in sorted(set(of))])
        assert result.folds[name]["mean_per_class_recall"] == pytest.approx(recall)
    for metric, spread in result.over_folds.items():
        values = [result.folds[name][metric] for name in names]
        assert spread.mean == pytest.approx(np.mean(values))
        assert spread.deviation == pytest.approx(stdev(values))


def test_rows_of_one_split_have_no_folds() -> None:
    rows = labelled(np.zeros((2, 1)), [0, 1], classes=2)
    result = summarise("x", rows, ranks_of([0, 1], [0, 0]), settings={"a": (1, 2)}, draws=10)
    assert (result.folds, result.over_folds) == ({}, {})


def test_a_result_is_json_that_says_what_was_measured_on_what() -> None:
    rows = labelled(np.zeros((2, 1)), [0, 1], classes=2, splits=["fold1", "fold2"])
    result = summarise("kNN", rows, ranks_of([0, 1], [0, 0]), settings={"k": 3}, draws=10)
    record = json.loads(json.dumps(result.to_dict()))
    assert (record["dataset"], record["fingerprint"], record["modality"], record["kind"]) == (
        "small",
        "f00d",
        "image",
        "embeddings",
    )
    assert (record["method"], record["settings"], record["classes"]) == ("kNN", {"k": 3}, 2)
    assert set(record["metrics"]["acc1"]) == {"value", "low", "high"}
    assert record["over_folds"]["acc1"]["mean"] == 0.5
