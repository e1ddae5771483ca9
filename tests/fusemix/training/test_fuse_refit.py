"""Refits: the selected number of steps, anew, on the items of train and val together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import DatasetStamp
from tests.fusemix.synthetic import world
from tests.fusemix.training.short_runs import SHORT, Interrupted, Recorder, metrics, same, train

# Learns so fast that neither the first nor the last of its validations is the best.
REFITTED = replace(SHORT, steps=20, learning_rate=0.2, patience=3, refit=True)
SELECTED = replace(REFITTED, refit=False)


def relabelled(latents: PairedLatents) -> PairedLatents:
    """Return the latents with the items of val in train, and those of test in val."""
    names = {"train": "train", "val": "train", "test": "val"}
    return replace(latents, splits=np.array([names[split] for split in latents.splits], object))


def best_step(run: Path) -> int:
    step = torch.load(run / "training_state.pt", weights_only=True)["state"]["best_step"]
    assert isinstance(step, int)
    return step


def test_a_refit_is_the_selected_number_of_steps_on_train_and_val(tmp_path: Path) -> None:
    refitted = train(world(), REFITTED, run=tmp_path)
    selected = best_step(tmp_path)
    assert 2 < selected < len(metrics(tmp_path))
    # The same schedule, stopped where the refit ends and validated only there.
    expected = train(relabelled(world()), replace(SELECTED, validate_every=20), on_step=Recorder(stop_at=selected))
    assert same(refitted, expected)
    assert not refitted.training
    assert same(refitted, JointSpace.load(tmp_path / "joint_space"))
    assert not same(refitted, train(world(), SELECTED))


def test_selection_is_the_same_with_a_refit_and_without(tmp_path: Path) -> None:
    train(world(), REFITTED, run=tmp_path / "with")
    train(world(), SELECTED, run=tmp_path / "without")
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")
    assert not (tmp_path / "without" / "refit").exists()
    steps = best_step(tmp_path / "with")
    told = metrics(tmp_path / "with" / "refit")
    assert [line["step"] for line in told] == list(range(steps))
    assert not any("mrr" in line for line in told), "nothing is left to validate on"


def test_test_items_have_no_part_in_a_refit() -> None:
    before = train(world(), REFITTED)
    latents = world()
    for of in latents.split("test").modalities.values():
        of.values[of.rows] = 1e3
    assert same(train(latents, REFITTED), before)


def test_an_interrupted_refit_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    whole = train(world(), REFITTED, run=tmp_path / "whole")
    selecting = len(metrics(tmp_path / "whole"))
    for moment in (1, selecting, selecting + 1, selecting + 3):
        with pytest.raises(Interrupted):
            train(world(), REFITTED, run=tmp_path / "killed", on_step=Recorder(interrupt_at=moment))
    assert same(train(world(), REFITTED, run=tmp_path / "killed"), whole)
    for folder in ("", "refit"):
        assert metrics(tmp_path / "killed" / folder) == metrics(tmp_path / "whole" / folder)
    assert same(JointSpace.load(tmp_path / "killed" / "joint_space"), whole)


def test_until_a_refit_is_complete_the_selected_space_is_the_runs(tmp_path: Path) -> None:
    selected = train(world(), SELECTED, run=tmp_path / "selected")
    steps = len(metrics(tmp_path / "selected"))
    stopped = train(world(), REFITTED, run=tmp_path / "half", on_step=Recorder(stop_at=steps + 1))
    assert same(stopped, selected)
    assert same(JointSpace.load(tmp_path / "half" / "joint_space"), selected)
    later = Recorder()
    refitted = train(world(), REFITTED, run=tmp_path / "half", on_step=later)
    assert later.steps == list(range(steps + 2, steps + best_step(tmp_path / "half") + 1))
    assert same(refitted, train(world(), REFITTED))


def test_a_run_that_is_stopped_while_selecting_is_not_refitted(tmp_path: Path) -> None:
    stopped = train(world(), REFITTED, run=tmp_path, on_step=Recorder(stop_at=3))
    assert same(stopped, train(world(), SELECTED, on_step=Recorder(stop_at=3)))
    assert not (tmp_path / "refit").exists()


def test_a_refitted_run_is_only_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refitted = train(world(), REFITTED, run=tmp_path)
    steps, selected = len(metrics(tmp_path)), best_step(tmp_path)
    told = capsys.readouterr().err
    assert f"refit: anew on train and val, {selected} steps as selected\n" in told
    recorder = Recorder()
    assert same(train(world(), REFITTED, run=tmp_path, on_step=recorder), refitted)
    assert recorder.steps == []
    assert capsys.readouterr().out == (
        f"{tmp_path}: complete, {steps} steps, best at {selected}\n"
        f"{tmp_path}: refitted on train and val, {selected} steps\n"
    )


def test_a_refit_is_a_setting_of_the_run(tmp_path: Path) -> None:
    train(world(), SELECTED, run=tmp_path)
    with pytest.raises(FusemixError, match=r"fuse\.refit was False, now True"):
        train(world(), REFITTED, run=tmp_path)
    assert same(train(world(), REFITTED, run=tmp_path, accept_changes=True), train(world(), REFITTED))


def test_without_its_refit_a_run_has_its_selected_space_again(tmp_path: Path) -> None:
    selected = train(world(), SELECTED)
    train(world(), REFITTED, run=tmp_path)
    assert same(train(world(), SELECTED, run=tmp_path, accept_changes=True), selected)
    assert same(JointSpace.load(tmp_path / "joint_space"), selected)
    # And is refitted anew where it is to be after all.
    recorder = Recorder()
    again = train(world(), REFITTED, run=tmp_path, accept_changes=True, on_step=recorder)
    assert len(recorder.steps) == best_step(tmp_path)
    assert same(again, train(world(), REFITTED))


def test_a_run_that_went_on_since_is_refitted_anew(tmp_path: Path) -> None:
    first = train(world(), REFITTED, run=tmp_path)
    longer = replace(REFITTED, steps=26, learning_rate=1e-3)
    again = train(world(), longer, run=tmp_path, accept_changes=True)
    assert not same(again, first)
    assert len(metrics(tmp_path / "refit")) == best_step(tmp_path)
    assert same(again, JointSpace.load(tmp_path / "joint_space"))


def test_a_dataset_to_validate_on_is_learned_from_too(capsys: pytest.CaptureFixture[str]) -> None:
    latents = world(200)
    birds = replace(latents.split("train"), dataset=DatasetStamp("birds"))
    cats = replace(latents.split("val"), dataset=DatasetStamp("cats"))
    train([birds, cats], REFITTED)
    selecting, _, refitting = capsys.readouterr().err.partition("refit: anew")
    assert "cats" not in selecting
    assert "cats: " in refitting


def test_what_a_refit_refuses_is_refused_before_training(tmp_path: Path) -> None:
    latents = world(200)
    birds = replace(latents.split("train"), dataset=DatasetStamp("birds"))
    cats = replace(latents.split("val"), dataset=DatasetStamp("cats"))
    weights = {"birds": 1e6}
    train([birds, cats], replace(SELECTED, dataset_weights=weights))
    with pytest.raises(FusemixError, match=r"dataset 'cats': its share of .* rounds to no item"):
        train([birds, cats], replace(REFITTED, dataset_weights=weights), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
