from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.benchmarks.logged_runs import logged, write_run
from tests.fusemix.commands.conftest import Fusemix

WITHOUT_TORCH = """
import sys
from fusemix.cli import main
main(sys.argv[1:])
assert "matplotlib" in sys.modules
for heavy in ("torch", "matplotlib.pyplot"):
    assert heavy not in sys.modules, heavy
"""


def test_the_picture_of_a_run_lies_in_its_folder(fusemix: Fusemix, tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "one", logged(12))
    told = fusemix("curves", run)
    assert (told.code, told, told.err) == (0, f"{run}/curves.png\n", "")
    with Image.open(run / "curves.png") as picture:
        assert picture.format == "PNG"


def test_the_picture_of_several_runs_lies_in_the_current_folder(
    fusemix: Fusemix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [write_run(tmp_path / "runs" / name, logged(12)) for name in ("one", "two")]
    monkeypatch.chdir(tmp_path)
    assert fusemix("curves", *runs) == "curves.png\n"
    assert (tmp_path / "curves.png").is_file()
    assert fusemix("curves", *runs, "--out", "pictures/both.png") == "pictures/both.png\n"
    assert (tmp_path / "pictures" / "both.png").is_file()


def test_the_same_run_twice_is_one(fusemix: Fusemix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", logged(3))
    assert fusemix("curves", tmp_path / "run", "run") == "run/curves.png\n"


def test_a_run_that_has_not_begun_is_left_out(fusemix: Fusemix, tmp_path: Path) -> None:
    begun, waiting = write_run(tmp_path / "begun", logged(3)), write_run(tmp_path / "waiting", [])
    told = fusemix("curves", begun, waiting, "--out", tmp_path / "both.png")
    assert (told.code, told.err) == (0, f"{waiting} has logged no step yet: it is left out\n")
    alone = fusemix("curves", waiting)
    assert (alone.code, alone.err.splitlines()[-1]) == (2, f"error: no step to draw yet in {waiting}")
    assert not (waiting / "curves.png").exists()


def test_unreadable_lines_are_told(fusemix: Fusemix, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", logged(3))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": \n{"step": 5, "loss": 1.0}\n{"step": 6, "lo')
    told = fusemix("curves", run)
    assert (told.code, told.err) == (0, f"{run}: 1 line of metrics.jsonl cannot be read\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no run at nowhere: name the folder of one, for example runs/emoji"),
        (["empty"], "empty has no metrics.jsonl: it is no run, or has not begun to train"),
        (["broken"], "broken/metrics.jsonl: none of its 1 lines is a JSON object with a step"),
        (["good", "--out", "curves.pdf"], "--out curves.pdf: curves are drawn as PNG: name a file that ends in .png"),
        (["good", "--outt", "x.png"], "unknown option --outt: did you mean '--out'?"),
    ],
)
def test_bad_input_is_one_line(
    fusemix: Fusemix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "good", logged(2))
    write_run(tmp_path / "broken", [])
    (tmp_path / "broken" / "metrics.jsonl").write_bytes(b"\x00\xff\n")
    told = fusemix("curves", *arguments)
    assert (told.code, told, told.err) == (2, "", f"error: {said}\n")


def test_no_run_named_is_one_line(fusemix: Fusemix) -> None:
    told = fusemix("curves")
    assert told.code == 2
    assert len(told.err.splitlines()) == 1


def test_drawing_needs_neither_torch_nor_a_display(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", logged(3))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "curves", run], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
