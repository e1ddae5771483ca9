from __future__ import annotations

import builtins
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fusemix.training.monitor import MetricsLog, Monitor

CPU = torch.device("cpu")


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def curve(run: Path, name: str) -> list[tuple[int, float]]:
    """Return what TensorBoard shows of a figure."""
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    return [(event.step, event.value) for event in board.Scalars(name)]


def test_metrics_are_one_object_a_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl", 0)
    for step in range(3):
        log.write(step=step, loss=0.1 + step)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": step, "loss": 0.1 + step} for step in range(3)]


def test_metrics_of_steps_that_will_be_done_again_are_dropped_as_is_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "loss": 3}\n{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    MetricsLog(path, 2).write(step=2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2]
    assert path.read_text().startswith('{"step": 0, "loss": 3}\n')


def test_figures_go_to_both_logs(tmp_path: Path) -> None:
    with Monitor(tmp_path, 0, CPU) as monitor:
        for step in range(3):
            monitor.write(
                step, {"loss": 0.5 * step, "loss/image-text": 1.0}, ["fuse.seed was 0, now 1"] if step == 1 else []
            )
    assert lines(tmp_path)[0] == {"step": 0, "loss": 0.0, "loss/image-text": 1.0}
    assert [line.get("changes") for line in lines(tmp_path)] == [None, ["fuse.seed was 0, now 1"], None]
    assert curve(tmp_path, "loss") == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert curve(tmp_path, "loss/image-text") == [(0, 1.0), (1, 1.0), (2, 1.0)]


@pytest.mark.parametrize("resume_at", [0, 2])
def test_steps_that_are_done_again_stand_once_in_both_logs(tmp_path: Path, resume_at: int) -> None:
    with Monitor(tmp_path, 0, CPU) as monitor:
        for step in range(4):
            monitor.write(step, {"loss": 1.0})
    # TensorBoard reads files in the order of their names: by the second, and within one by a count without zeros.
    time.sleep(1.01)
    with Monitor(tmp_path, resume_at, CPU) as monitor:
        monitor.write(resume_at, {"loss": 2.0})
    expected = [(step, 1.0) for step in range(resume_at)] + [(resume_at, 2.0)]
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == expected
    assert curve(tmp_path, "loss") == expected


def test_what_is_flushed_outlives_a_kill(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, 0, CPU)
    for step in range(5):
        monitor.write(step, {"loss": 1.0})
    monitor.flush()
    assert curve(tmp_path, "loss") == [(step, 1.0) for step in range(5)]
    monitor.__exit__(None, None, None)


def test_what_is_not_finite_is_left_out_so_that_every_line_is_json(tmp_path: Path) -> None:
    with Monitor(tmp_path, 0, CPU) as monitor:
        monitor.write(0, {"loss": 1.0, "gradient_norm": math.inf, "skipped": 1})
    assert lines(tmp_path) == [{"step": 0, "loss": 1.0, "skipped": 1}]


def test_without_tensorboard_the_lines_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if "tensorboard" in name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with Monitor(tmp_path, 0, CPU) as monitor:
        monitor.write(0, {"loss": 1.0})
        monitor.flush()
    assert lines(tmp_path) == [{"step": 0, "loss": 1.0}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Monitor(None, 0, CPU) as monitor:
        monitor.write(0, {"loss": 1.0})
        monitor.flush()
    assert list(tmp_path.iterdir()) == []


def test_speed_counts_from_the_beginning_of_a_step_and_memory_is_that_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("fusemix.training.monitor.time.perf_counter", lambda: now[0])
    monitor = Monitor(None, 0, CPU)
    now[0] = 107.0
    monitor.begin()
    now[0] = 109.0
    measured = monitor.measured(30)
    assert measured["items_per_second"] == 15.0
    assert 0.1 < measured["memory_gb"] < 100


CAUSES = {
    "mean_cosine/image": (0.99, "step 7: the image embeddings collapse, .*cosine of 0.990"),
    "birds/mean_cosine/text": (1.0, "step 7: the text embeddings collapse"),
    "temperature/shared": (0.001, r"step 7: the temperature 'shared' is 0.001, at a bound of \[0.001, 0.5\]"),
    "temperature/own": (0.5, "step 7: the temperature 'own' is 0.5, at a bound"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_a_run_that_goes_astray_warns_once_of_each_cause(name: str) -> None:
    value, message = CAUSES[name]
    monitor = Monitor(None, 0, CPU)
    with pytest.warns(RuntimeWarning, match=message):
        monitor.warn_of(7, {"loss": 1.0, name: value})
    # Warnings are errors here: a second one would end the test.
    monitor.warn_of(8, {name: value})
    kind, of = name.rsplit("/", 1)
    with pytest.warns(RuntimeWarning):
        monitor.warn_of(8, {f"{kind}/another-{of}": value})


def test_what_is_in_its_bounds_is_no_cause_to_warn() -> None:
    figures = {"mean_cosine/image": 0.9, "temperature/a": 0.0012, "temperature/b": 0.49, "bias/c": 0.5, "loss": 0.5}
    Monitor(None, 0, CPU).warn_of(1, figures)
