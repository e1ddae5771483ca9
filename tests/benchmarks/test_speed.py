"""The speed benchmarks run and say what they measured; how fast anything is, no test asserts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusemix.benchmarks.results import SCHEMA_VERSION
from fusemix.benchmarks.speed import latents
from fusemix.benchmarks.speed.__main__ import main
from fusemix.benchmarks.speed.loss import LOSSES, one_step
from fusemix.benchmarks.speed.measure import Ratio, in_turn, peak_above

SIZES = {"loss": r"B=256, d=512, float32", "ranks": r"200 x 1000, d=512"}


def measured(benchmark: str, out: Path) -> tuple[str, dict[str, Any]]:
    command = [sys.executable, "-m", "fusemix.benchmarks.speed", benchmark, "--quick", "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    read: dict[str, Any] = json.loads(out.read_text())
    return done.stdout, read


def seconds_of(result: dict[str, Any]) -> list[list[float]]:
    return list(result["seconds"].values())


@pytest.mark.parametrize("benchmark", SIZES)
def test_the_command_prints_a_ratio_and_writes_what_it_was_obtained_with(benchmark: str, tmp_path: Path) -> None:
    printed, read = measured(benchmark, tmp_path / "results" / "speed.json")
    assert re.search(rf"{SIZES[benchmark]}.* \d+\.\d\dx \(\d+\.\d{{3}} s against \d+\.\d{{3}} s\)", printed)
    assert f"torch {torch.__version__}" in printed.splitlines()[0]
    assert (read["schema_version"], read["benchmark"]) == (SCHEMA_VERSION, f"speed/{benchmark}")
    assert read["quick"] is True
    assert read["machine"].keys() >= {"processor", "cores", "threads", "memory_gb", "gpu", "python", "fusemix"}
    assert read["machine"]["torch"] == torch.__version__
    (result,) = read["rows"] if benchmark == "loss" else [read]
    assert result["time_ratio"] == Ratio(*seconds_of(result)).value
    assert [len(runs) for runs in seconds_of(result)] == [5, 5]
    sizes = {"loss": {"batch_size": 256, "dim": 512}, "ranks": {"queries": 200, "gallery": 1000, "dim": 512}}
    assert result.items() >= sizes[benchmark].items()
    if benchmark == "loss":
        assert result["extra_bytes"].keys() == LOSSES.keys()


@pytest.mark.slow
def test_extraction_is_measured_for_pictures_and_captions(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "fusemix.benchmarks.speed",
        "extraction",
        "--quick",
        "--out",
        str(tmp_path / "out"),
    ]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    read = json.loads((tmp_path / "out").read_text())
    for row, said in zip(read["rows"], printed.splitlines()[1:], strict=False):
        ratio = Ratio(row["seconds"]["extract"], row["seconds"]["plain"])
        assert row["time_ratio"] == ratio.value
        assert said == (
            f"extract, {row['sources']} {row['modality']} sources by {row['encoder']}: {ratio} decode and bare encode"
        )
    assert [row["modality"] for row in read["rows"]] == ["image", "text"]
    assert 0 < read["padding"] < 1


@pytest.mark.slow
def test_latents_are_measured_beside_a_bare_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    read = latents.run(quick=True)
    assert (read["rows"], read["dim"]) == (2000, 64)
    assert isinstance(read["extra_bytes"], dict)
    assert list(read["extra_bytes"]) == ["20", "2000"]
    assert "the speed of numpy.fromfile" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_benchmark_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["speed", "everything"])
    with pytest.raises(SystemExit):
        main()
    assert "invalid choice: 'everything'" in capsys.readouterr().err


def test_both_losses_do_the_same_work() -> None:
    rng = torch.Generator().manual_seed(0)
    u, v = (torch.nn.functional.normalize(torch.randn(50, 16, generator=rng)).requires_grad_() for _ in range(2))
    scale = torch.tensor(2.0).requires_grad_()
    found = {}
    for name, loss in LOSSES.items():
        value = loss(u, v, scale)
        found[name] = (value.detach(), *torch.autograd.grad(value, (u, v, scale)))
        one_step(loss, 4, 8)()
    for tiled, plain in zip(found["tiled"], found["materialised"], strict=True):
        torch.testing.assert_close(tiled, plain, atol=1e-6, rtol=1e-5)


def test_ways_are_measured_in_turn_after_one_run_of_each() -> None:
    order: list[str] = []
    ratio = in_turn(lambda: order.append("ours"), lambda: order.append("plain"), repeats=3)
    assert order == ["ours", "plain"] * 4
    assert (len(ratio.ours), len(ratio.plain)) == (3, 3)


def test_a_ratio_is_of_medians() -> None:
    ratio = Ratio([9.0, 1.0, 2.0], [4.0, 100.0, 4.0])
    assert ratio.value == 0.5
    assert str(ratio) == "0.50x (2.000 s against 4.000 s)"


def test_peak_memory_is_that_of_the_work_alone() -> None:
    # The peak of this process is no business of the fresh one.
    np.ones(50_000_000)
    script = (
        "from fusemix.benchmarks.speed.measure import peak_above\n"
        "import numpy as np\n"
        "print(peak_above(lambda: np.ones(25_000_000)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert 1.95e8 <= int(done.stdout) <= 2.1e8


def test_peak_memory_is_refused_where_an_earlier_peak_hides_it() -> None:
    np.ones(50_000_000)
    with pytest.raises(RuntimeError, match="fresh"):
        peak_above(lambda: None)
