"""The comparison of methods on synthetic pairs, with a few steps of training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusemix.adapters import AdapterSettings
from fusemix.benchmarks.aligners import ridge
from fusemix.benchmarks.bootstrap import ItemBootstrap
from fusemix.benchmarks.comparison import Comparison, compare
from fusemix.benchmarks.per_query import PerQuery, per_query
from fusemix.benchmarks.retrieval import evaluate_retrieval
from fusemix.benchmarks.settings import BenchmarkSettings
from fusemix.latents.paired import PairedLatents
from fusemix.training.fuse import fuse
from fusemix.training.settings import FuseSettings

from .small_world import small_world

FUSE = FuseSettings(
    steps=8,
    batch_size=10,
    joint_dim=4,
    adapter=AdapterSettings(depth=1, expansion=1, dropout=0.1),
    learning_rate=1e-2,
    warmup_steps=1,
    validate_every=4,
    seed=99,
)
SETTINGS = BenchmarkSettings(k=(1, 5), draws=100, seeds=(3, 5))
DIRECTIONS = ("image to text", "text to image")


@pytest.fixture(scope="module")
def world() -> PairedLatents:
    return small_world()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def comparison(world: PairedLatents, runs: Path) -> Comparison:
    return compare(world, "image", "text", FUSE, SETTINGS, runs=runs, device="cpu")


@pytest.fixture(scope="module")
def measured(world: PairedLatents) -> dict[str, list[tuple[PerQuery, PerQuery]]]:
    """Each method and seed, trained and measured one by one."""
    test = world.split("test")
    return {
        name: [
            per_query(fuse(world, replace(FUSE, mixup=mixup, seed=seed), device="cpu"), test, "image", "text", (1, 5))
            for seed in SETTINGS.seeds
        ]
        for name, mixup in (("fusemix", FUSE.mixup), ("no-mixup", "none"))
    }


def test_methods_and_their_seeds(comparison: Comparison) -> None:
    assert [(method.name, method.seeds) for method in comparison.methods] == [
        ("fusemix", (3, 5)),
        ("no-mixup", (3, 5)),
        ("ridge", ()),
    ]


def test_figures_are_averaged_over_seeds(
    comparison: Comparison, measured: dict[str, list[tuple[PerQuery, PerQuery]]]
) -> None:
    for method in comparison.methods[:2]:
        for side, direction in enumerate(method.result.directions):
            of_seeds = [both[side] for both in measured[method.name]]
            assert direction.name == DIRECTIONS[side]
            for key in ("R@1", "R@5", "MRR"):
                means = [one.metrics[key].mean() for one in of_seeds]
                assert method.of_seeds[direction.name][key] == pytest.approx(means)
                assert direction.metrics[key].value == pytest.approx(np.mean(means))
            assert direction.metrics["MedR"].value == np.median(np.mean([one.ranks for one in of_seeds], axis=0))
    mixed, unmixed = (method.of_seeds for method in comparison.methods[:2])
    assert mixed != unmixed


def test_ridge_is_measured_once(comparison: Comparison, world: PairedLatents) -> None:
    method = comparison.methods[2]
    assert method.result == evaluate_retrieval(ridge(world, "image", "text"), world, "image", "text", SETTINGS)
    assert method.difference == {}
    assert all(len(seeds) == 1 for of in method.of_seeds.values() for seeds in of.values())


def test_differences_to_ridge_are_paired_by_item(
    comparison: Comparison, world: PairedLatents, measured: dict[str, list[tuple[PerQuery, PerQuery]]]
) -> None:
    test = world.split("test")
    bootstrap = ItemBootstrap(len(test), SETTINGS.draws, SETTINGS.seeds[0])
    base = per_query(ridge(world, "image", "text"), test, "image", "text", (1, 5))
    ridge_result = comparison.methods[2].result
    for method in comparison.methods[:2]:
        for side, direction in enumerate(method.result.directions):
            differences = method.difference[direction.name]
            assert differences.keys() == {"R@1", "R@5", "recall@1", "recall@5", "MRR", "mAP@10"}
            for key, interval in differences.items():
                gained = direction.metrics[key].value - ridge_result.directions[side].metrics[key].value
                assert interval.value == pytest.approx(gained, abs=1e-12)
                mine = np.mean([both[side].metrics[key] for both in measured[method.name]], axis=0)
                draws = bootstrap.means(mine - base[side].metrics[key], base[side].items)
                assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))


def test_finished_runs_are_reused(comparison: Comparison, world: PairedLatents, runs: Path) -> None:
    folders = {f"{name}-seed{seed}" for name in ("fusemix", "no-mixup") for seed in SETTINGS.seeds}
    assert {folder.name for folder in runs.iterdir()} == folders

    def written() -> dict[Path, tuple[int, int]]:
        return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in runs.rglob("*") if file.is_file()}

    before = written()
    assert any(path.name == "training_state.pt" for path in before)
    assert compare(world, "image", "text", FUSE, SETTINGS, runs=runs, device="cpu") == comparison
    after = written()
    states = [path for path in before if path.name != "metrics.jsonl"]
    assert [before[path] for path in states] == [after[path] for path in states]


def test_the_comparison_goes_through_json(comparison: Comparison) -> None:
    read = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert [method["name"] for method in read["methods"]] == ["fusemix", "no-mixup", "ridge"]
    assert read["methods"][0]["difference"].keys() == set(DIRECTIONS)


def test_where_fusemix_is_refitted_so_is_ridge(world: PairedLatents, comparison: Comparison) -> None:
    refitted = replace(FUSE, refit=True)
    settings = replace(SETTINGS, seeds=(3,))
    compared = compare(world, "image", "text", refitted, settings, device="cpu")
    assert compared.refit
    assert not comparison.refit
    for method, space in (
        (compared.methods[0], fuse(world, replace(refitted, seed=3), device="cpu")),
        (compared.methods[2], ridge(world, "image", "text", refit=True)),
    ):
        measured = evaluate_retrieval(space, world, "image", "text", settings)
        assert [one.metrics["MRR"] for one in method.result.directions] == [
            one.metrics["MRR"] for one in measured.directions
        ]
