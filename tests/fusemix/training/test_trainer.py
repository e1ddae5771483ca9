"""When checkpoints are written: a share of the time, but always at a best step and at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from fusemix.joint_space import JointSpace
from fusemix.training import trainer
from fusemix.training.checkpoint import Checkpoint, save_state
from tests.fusemix.synthetic import world
from tests.fusemix.training.short_runs import SHORT, same, train

# Learns so fast that many of its validations are not the best.
FAST = replace(SHORT, steps=78, learning_rate=0.2, patience=100)
A_SAVE, A_STEP = 0.5, 1.0


class Clock:
    """Tells a time at which each step and each checkpoint took what a test says, and notes the checkpoints."""

    def __init__(self) -> None:
        self.now = 100.0
        self.saved: dict[str, list[tuple[int, float]]] = {}

    def __call__(self) -> float:
        return self.now

    def save(self, path: Path, checkpoint: Checkpoint) -> None:
        save_state(path, checkpoint)
        self.now += A_SAVE
        self.saved.setdefault(path.parent.name, []).append((checkpoint.state.step, self.now))

    def on_step(self, step: int, figures: Mapping[str, float]) -> None:
        self.now += A_STEP


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(trainer, "monotonic", clock)
    monkeypatch.setattr(trainer, "save_state", clock.save)
    return clock


def test_checkpoints_between_best_steps_take_a_tenth_of_the_time(clock: Clock, tmp_path: Path) -> None:
    best, highest = set(), -1.0

    def on_validation(step: int, figures: Mapping[str, float]) -> None:
        nonlocal highest
        if figures["mrr"] > highest:
            best.add(step)
            highest = figures["mrr"]

    space = train(
        world(), replace(FAST, refit=True), run=tmp_path / "run", on_step=clock.on_step, on_validation=on_validation
    )
    selecting, refitting = clock.saved["run"], clock.saved["refit"]
    pause = A_SAVE / trainer.SHARE_OF_TIME
    expected: list[tuple[int, float]] = []
    free_at = 0.0
    for step in range(FAST.validate_every, FAST.steps + 1, FAST.validate_every):
        began = 100 + step * A_STEP + len(expected) * A_SAVE
        if step in best or step == FAST.steps or began >= free_at:
            expected.append((step, began + A_SAVE))
            free_at = began + A_SAVE + pause
    assert selecting == expected
    assert best | {FAST.steps} < {step for step, _ in selecting}, "some others are kept too"
    assert len(selecting) < FAST.steps // FAST.validate_every, "and not all"
    assert refitting[-1][0] == max(best), "what is complete is kept"
    assert all(later - earlier >= pause for (_, earlier), (_, later) in pairwise(refitting[:-1]))
    assert same(space, train(world(), replace(FAST, refit=True)))


def test_the_joint_space_in_the_folder_is_the_best_so_far(clock: Clock, tmp_path: Path) -> None:
    def stop(step: int, _: Mapping[str, float]) -> bool:
        return step == 51

    stopped = train(world(), FAST, run=tmp_path / "run", on_step=stop)
    assert clock.saved["run"][-1][0] == 51, "where a run is stopped, it is kept"
    assert same(JointSpace.load(tmp_path / "run" / "joint_space"), stopped)
