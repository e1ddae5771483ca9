from __future__ import annotations

import json
from pathlib import Path

import pytest

from fusemix.benchmarks.history import Curve, Direction, History, read_history, short_names
from fusemix.errors import FusemixError
from tests.benchmarks.logged_runs import TRIANGLE, logged, write_run


def read(folder: Path) -> History:
    history = read_history(folder)
    assert history is not None
    return history


def test_a_curve_has_the_steps_that_logged_its_figure(tmp_path: Path) -> None:
    lines = logged(25, TRIANGLE)
    history = read(write_run(tmp_path / "run", lines))
    for name in {name for line in lines for name in line} - {"step"}:
        having = [line for line in lines if name in line]
        assert history.curve(name) == Curve([line["step"] for line in having], [line[name] for line in having])
    assert (history.name, history.steps, history.unreadable) == ("run", 25, 0)
    assert history.edges == ["image-text", "text-audio", "image-audio"]
    assert history.curve("never logged") == Curve([], [])


@pytest.mark.parametrize("cut", [1, 20, -2])
def test_a_line_that_is_being_written_is_left_out(tmp_path: Path, cut: int) -> None:
    folder = write_run(tmp_path / "run", logged(3))
    whole = read(folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "loss": 1.0})[:cut])
    assert read(folder) == whole


def test_a_last_line_without_its_end_of_line_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", logged(3))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "loss": 1.0}))
    assert read(folder).curve("loss").steps == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "line", ['{"step": 1, "lo', "[1, 2]", "null", '{"loss": 1}', '{"step": "1"}', "\0\0", "1e400", '{"step": 1e400}']
)
def test_a_line_that_cannot_be_read_is_counted(tmp_path: Path, line: str) -> None:
    folder = write_run(tmp_path / "run", logged(2))
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(line + "\n" + text)
    history = read(folder)
    assert (history.unreadable, history.steps) == (1, 2)


def test_bytes_that_are_no_text_are_counted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", logged(2))
    whole = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(b"\xff\xfe\n" + whole)
    assert read(folder).unreadable == 1


def test_figures_that_are_no_finite_numbers_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [{"step": 0, "a": float("nan"), "b": None, "c": True, "d": "x", "e": 2}])
    assert read(folder).curves == {"e": Curve([0], [2.0])}


def test_of_a_step_that_stands_twice_the_later_line_counts(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": loss} for step, loss in ((0, 5.0), (2, 3.0), (1, 4.0), (1, 4.5), (2, 3.5))]
    assert read(write_run(tmp_path / "run", lines)).curve("loss") == Curve([0, 1, 2], [5.0, 4.5, 3.5])


def test_the_chosen_step_is_the_first_of_the_best(tmp_path: Path) -> None:
    scores = {4: 0.2, 9: 0.5, 14: 0.5, 19: 0.1}
    lines = [{"step": step, "loss": 1.0} | ({"mrr": scores[step]} if step in scores else {}) for step in range(20)]
    assert read(write_run(tmp_path / "run", lines)).chosen == (9, 0.5)
    assert read(write_run(tmp_path / "early", lines[:3])).chosen is None


def test_directions_are_found_with_their_dataset() -> None:
    one = Curve([0], [0.5])
    fields = ["loss/image-text", "mrr", "coco/mrr", "a-to-b/c/image-to-text/mrr", "image-to-text/R@1", "x/recall"]
    history = History("run", dict.fromkeys(fields, one), 1)
    assert history.directions() == [Direction("a-to-b/c", "image", "text"), Direction("", "image", "text")]
    assert [direction.key for direction in history.directions()] == ["a-to-b/c/image-to-text", "image-to-text"]


def test_a_modality_whose_name_has_a_to_in_it_is_told_by_the_edge() -> None:
    one = Curve([0], [0.5])
    fields = ["loss/face-to-face-text", "face-to-face-to-text/mrr", "text-to-face-to-face/mrr"]
    history = History("run", dict.fromkeys(fields, one), 1)
    assert history.directions() == [Direction("", "face-to-face", "text"), Direction("", "text", "face-to-face")]


def test_a_family_is_a_field_and_those_below_it() -> None:
    fields = ["loss", "loss/image-text", "temperature/a", "temperature/b", "temperature_of_the_room"]
    history = History("run", dict.fromkeys(fields, Curve([0], [1.0])), 1)
    assert history.family("temperature") == ["temperature/a", "temperature/b"]
    assert history.family("loss") == ["loss"]
    assert history.family("bias") == []


def test_a_run_that_has_logged_nothing_yet_is_none(tmp_path: Path) -> None:
    assert read_history(write_run(tmp_path / "run", [])) is None


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FusemixError, match=r"no run at .*nowhere: name the folder"):
        read_history(tmp_path / "nowhere")
    with pytest.raises(FusemixError, match=r"has no metrics\.jsonl"):
        read_history(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("a\nb\n")
    with pytest.raises(FusemixError, match=r"metrics\.jsonl: none of its 2 lines is a JSON object with a step"):
        read_history(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step"')
    with pytest.raises(FusemixError, match="none of its 1 lines"):
        read_history(tmp_path)


def test_runs_are_called_by_as_much_as_tells_them_apart() -> None:
    assert short_names([Path("/a/b/c"), Path("/a/b/d")]) == ["c", "d"]
    assert short_names([Path("/a/b/c"), Path("/a/e/c"), Path("/f/e/d")]) == ["b/c", "e/c", "e/d"]
    assert short_names([Path("/a/b/c")]) == ["c"]
