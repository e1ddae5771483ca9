"""A bake-off against the same steps taken one by one, and what survives a kill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusemix.benchmarks.bakeoff import running
from fusemix.benchmarks.bakeoff.fractions import with_fraction
from fusemix.benchmarks.bakeoff.methods import Method, all_methods
from fusemix.benchmarks.bakeoff.results import Bakeoff
from fusemix.benchmarks.bakeoff.running import bakeoff
from fusemix.benchmarks.bakeoff.settings import METHODS, BakeoffSettings
from fusemix.benchmarks.per_query import per_query
from fusemix.benchmarks.protocols import PROTOCOLS
from fusemix.errors import FusemixError
from fusemix.latents.paired import PairedLatents
from fusemix.objective import Edge
from fusemix.training.validation import Validation
from tests.benchmarks.small_world import small_world

from .baked import DIRECTIONS, MEASURED, RECIPE, SMALL, WORLD


def bake(latents: PairedLatents = WORLD, settings: BakeoffSettings = SMALL, folder: Path | None = None) -> Bakeoff:
    return bakeoff(latents, "image", "text", RECIPE, settings, MEASURED, folder=folder)


def untimed(result: Bakeoff) -> dict[str, Any]:
    """Return what does not depend on the clock."""
    return replace(
        result,
        cells=tuple(
            replace(cell, seconds=0, tuning_seconds=0, tried=tuple(replace(trial, seconds=0) for trial in cell.tried))
            for cell in result.cells
        ),
    ).to_dict()


@pytest.fixture(scope="module")
def baked() -> Bakeoff:
    return bake()


def test_there_is_a_cell_for_each_method_and_fraction(baked: Bakeoff) -> None:
    assert [(cell.method, cell.fraction) for cell in baked.cells] == [
        (method, fraction) for fraction in (0.5, 1.0) for method in SMALL.methods
    ]
    assert {(cell.fraction, cell.items) for cell in baked.cells} == {(0.5, 20), (1.0, 40)}
    assert baked.directions == list(DIRECTIONS)
    assert {"R@1", "R@5", "R@10", "MRR"} <= set(baked.cells[0].metrics["image to text"])


@pytest.mark.parametrize("name", SMALL.methods)
@pytest.mark.parametrize("fraction", SMALL.fractions)
def test_a_cell_is_what_its_steps_give_one_by_one(baked: Bakeoff, name: str, fraction: float) -> None:
    method, cell = all_methods("image", "text", RECIPE, "cpu")[name], baked.cell(name, fraction)
    validation = Validation(WORLD.split("val"), [Edge("image", "text")])
    first = with_fraction(WORLD, fraction, 0)
    mrr = [validation(method.align(first, of, 0))["mrr"] for of in method.configurations[:2]]
    assert [trial.mrr for trial in cell.tried] == pytest.approx(mrr)
    assert cell.chosen == method.configurations[int(np.argmax(mrr))]
    # A map by formula has one outcome on all items.
    assert cell.runs == (1 if fraction == 1 and name != "fusemix" else 2)
    spaces = [method.align(with_fraction(WORLD, fraction, seed), cell.chosen, seed) for seed in range(cell.runs)]
    measured = [per_query(space, WORLD.split("test"), "image", "text", (1,)) for space in spaces]
    for place, direction in enumerate(DIRECTIONS):
        of_seeds = [run[place].metrics["R@1"].mean() for run in measured]
        assert cell.of_seeds[direction]["R@1"] == pytest.approx(of_seeds)
        found = cell.metrics[direction]["R@1"]
        assert found.value == pytest.approx(np.mean(of_seeds))
        assert found.low <= found.value <= found.high


def test_the_test_items_choose_nothing() -> None:
    other = small_world(dims=(7, 5), noise=0.6)
    for of in other.split("test").modalities.values():
        of.values[of.rows] = torch.randn(of.values[of.rows].shape, generator=torch.Generator().manual_seed(0))
    settings = replace(SMALL, methods=("ridge", "asif"), budget=4)
    first, second = bake(settings=settings), bake(other, settings)
    for mine, theirs in zip(first.cells, second.cells, strict=True):
        assert mine.chosen == theirs.chosen
        assert [trial.mrr for trial in mine.tried] == [trial.mrr for trial in theirs.tried]
    assert untimed(first) != untimed(second)


def test_every_method_of_the_settings_can_be_baked_and_says_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    methods = all_methods("image", "text", RECIPE, "cpu")
    assert tuple(methods) == METHODS
    for method in methods.values():
        assert len(method.configurations) == len({tuple(of.items()) for of in method.configurations}) == 4
    settings = BakeoffSettings(fractions=(1.0,), seeds=1, budget=1)
    assert [cell.method for cell in bake(settings=settings).cells] == list(METHODS)
    told = capsys.readouterr()
    assert ([line.split(",")[0] for line in told.out.splitlines()], told.err) == (list(METHODS), "")


def test_learning_rates_are_multiples_of_the_recipe_s() -> None:
    [*rates] = (of["learning rate"] for of in all_methods("image", "text", RECIPE, "cpu")["lit-style"].configurations)
    assert rates == [0.001, 0.0003, 0.003, 0.0001]


@pytest.mark.parametrize("name", METHODS)
def test_each_configuration_has_an_outcome_of_its_own(name: str) -> None:
    method = all_methods("image", "text", RECIPE, "cpu")[name]
    one, other = (method.align(WORLD, of, 0).state_dict() for of in method.configurations[:2])
    if name == "asif":  # whose adapters differ in their power, and store the same
        one, other = (
            {"text": method.align(WORLD, of, 0).encode("text", WORLD["text"].values)}
            for of in method.configurations[:2]
        )
    assert any(one[key].shape != other[key].shape or not torch.equal(one[key], other[key]) for key in one)


def counted(whole: dict[str, Method], done: list[str], stop: int) -> dict[str, Method]:
    """Return methods that note each time that they align, and are killed after `stop` times."""

    def counting(name: str, method: Method) -> Method:
        def align(latents: PairedLatents, of: Any, seed: int) -> Any:
            if len(done) == stop:
                raise KeyboardInterrupt
            done.append(name)
            return method.align(latents, of, seed)

        return replace(method, align=align)

    return {name: counting(name, method) for name, method in whole.items()}


# In the course of a method's runs, and of its tuning.
@pytest.mark.parametrize(("stop", "kept"), [(8, 4 + 4 + 3), (10, 4 + 4 + 4 + 1)])
def test_a_killed_bake_off_goes_on(
    baked: Bakeoff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, kept: int
) -> None:
    done: list[str] = []
    monkeypatch.setattr(running, "all_methods", lambda *given: counted(all_methods(*given), done, stop))
    with pytest.raises(KeyboardInterrupt):
        bake(folder=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(before) == kept
    monkeypatch.undo()
    again = bake(folder=tmp_path)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {path: after[path] for path in before} == before
    assert untimed(again) == untimed(baked)
    # All of it was kept, the times too.
    assert bake(folder=tmp_path).to_dict() == again.to_dict()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == after


def test_the_first_seed_runs_once_for_the_choice_and_for_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(running, "all_methods", lambda *given: counted(all_methods(*given), done, -1))
    result = bake()
    # Two configurations, and a second seed but for what has no randomness on all items.
    assert done == [*3 * ["ridge"], *3 * ["asif"], *3 * ["fusemix"], *2 * ["ridge"], *2 * ["asif"], *3 * ["fusemix"]]
    for cell in result.cells:
        [chosen] = [trial for trial in cell.tried if trial.configuration == cell.chosen]
        if cell.runs == 1:
            assert cell.seconds == chosen.seconds


def test_one_configuration_s_run_is_not_taken_for_another_s(tmp_path: Path) -> None:
    settings = BakeoffSettings(("asif",), (1.0,), seeds=1, budget=2)
    whole = bake(settings=settings, folder=tmp_path)
    assert whole.cells[0].chosen == whole.cells[0].tried[1].configuration
    # What is left is the second trial: the first is tried anew, and is not what runs.
    for path in tmp_path.iterdir():
        run = json.loads(path.read_text())["run"]
        if run["stage"] != "tuning" or run["configuration"] != whole.cells[0].chosen:
            path.unlink()
    assert len(list(tmp_path.iterdir())) == 1
    assert untimed(bake(settings=settings, folder=tmp_path)) == untimed(whole)


def test_more_fractions_seeds_and_tuning_take_up_what_is_there(tmp_path: Path) -> None:
    small = BakeoffSettings(("ridge",), (0.5,), seeds=1, budget=1)
    bake(settings=small, folder=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(before) == 2
    larger = replace(small, fractions=(0.5, 1.0), seeds=2, budget=2)
    assert untimed(bake(settings=larger, folder=tmp_path)) == untimed(bake(settings=larger))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_latents_and_recipes_are_computed_anew(tmp_path: Path) -> None:
    settings = BakeoffSettings(("ridge",), (1.0,), seeds=1, budget=1)
    bake(settings=settings, folder=tmp_path)
    bake(small_world(dims=(6, 5)), settings, tmp_path)
    bakeoff(WORLD, "image", "text", replace(RECIPE, steps=5), settings, MEASURED, folder=tmp_path)
    bakeoff(WORLD, "text", "image", RECIPE, settings, MEASURED, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 8


def test_the_recipe_s_protocol_measures(tmp_path: Path) -> None:
    settings, folds = BakeoffSettings(("ridge",), (1.0,), seeds=1, budget=1), replace(MEASURED, protocol="coco-1k")
    generic = bake(settings=settings, folder=tmp_path)
    result = bakeoff(WORLD, "image", "text", RECIPE, settings, folds, folder=tmp_path)
    assert (generic.protocol, result.protocol) == ("generic", "coco-1k")
    assert generic.warnings == ()
    assert "are not what the protocol coco-1k was published with" in result.warnings[0]
    method = all_methods("image", "text", RECIPE, "cpu")["ridge"]
    space = method.align(WORLD, method.configurations[0], 0)
    expected = per_query(space, WORLD.split("test"), "image", "text", (1,), PROTOCOLS["coco-1k"])
    for direction, of in zip(DIRECTIONS, expected, strict=True):
        found = [of.metrics["R@1"][of.folds == fold].mean() for fold in range(5)]
        assert result.cells[0].metrics[direction]["R@1"].value == pytest.approx(np.mean(found))
        assert result.left_out[direction] == of.left_out
    assert bake(settings=settings, folder=tmp_path).to_dict() == generic.to_dict()


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    settings = BakeoffSettings(("ridge",), (1.0,), seeds=1, budget=1)
    bake(settings=settings, folder=tmp_path)
    path = min(tmp_path.iterdir())
    path.write_text('{"found": ')
    with pytest.raises(FusemixError, match=f"{path.name} cannot be read .*: remove it and run the bake-off again"):
        bake(settings=settings, folder=tmp_path)


def test_a_fraction_with_too_few_pairs_stops_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(FusemixError, match=r"--fractions 0\.05: it leaves "):
        bake(settings=BakeoffSettings(fractions=(1.0, 0.05)), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_refitted(baked: Bakeoff) -> None:
    refitted = bakeoff(WORLD, "image", "text", replace(RECIPE, refit=True), SMALL, MEASURED)
    assert untimed(refitted) == untimed(baked)
