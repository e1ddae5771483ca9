from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fusemix.benchmarks.speed.memory import CARDS, ON_CPU, ON_GPU, QUICK, Case, for_cards, training
from fusemix.training.memory import SHARE_FOR_TRAINING, predicted_memory


def test_a_case_trains_with_the_shapes_that_are_predicted() -> None:
    for case in (QUICK, replace(QUICK, dims=(8, 6, 4), batch_size=10, micro_batch=4, kind="gated")):
        training(replace(case, batch_size=16))()
        shape = case.shape
        assert [shape.dims[name] for name in ("image", "text")] == list(case.dims[:2])
        assert len(shape.edges) == len(case.dims) * (len(case.dims) - 1) // 2
        assert shape.at_once == (case.micro_batch or case.batch_size)


def test_cases_fit_the_machines_they_are_for() -> None:
    assert all(predicted_memory(case.shape).total < 8e9 for case in ON_CPU)
    assert {case.device for case in ON_CPU} == {"cpu"}
    assert {case.device for case in ON_GPU} == {"cuda"}


def test_the_batches_for_cards_fill_them_and_slices_hold_more(capsys: pytest.CaptureFixture[str]) -> None:
    rows = for_cards()
    told = capsys.readouterr().out.splitlines()
    assert "predicted, not measured" in told[0]
    assert len(told) == 1 + len(rows) == 1 + 4 * len(CARDS)
    for row, line in zip(rows, told[1:], strict=True):
        assert line.endswith(f"B={row['batch_size']:,}")
    for whole, sliced in zip(rows[::2], rows[1::2], strict=True):
        assert sliced["batch_size"] > 2 * whole["batch_size"]  # type: ignore[operator]
        case = Case((1536, 1024), whole["batch_size"], precision=whole["precision"], device="cuda")  # type: ignore[arg-type]
        room = SHARE_FOR_TRAINING["cuda"] * whole["card_gb"] * 2**30  # type: ignore[operator]
        assert 0.999 * room < predicted_memory(case.shape).total <= room


@pytest.mark.slow
def test_what_was_measured_is_printed_and_written_beside_the_prediction(tmp_path: Path) -> None:
    out = tmp_path / "memory.json"
    command = [sys.executable, "-m", "fusemix.benchmarks.speed", "memory", "--quick", "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    [row] = json.loads(out.read_text())["rows"]
    assert row.items() >= {**asdict(QUICK), "dims": list(QUICK.dims)}.items()
    assert row["ratio"] == row["predicted_bytes"] / row["measured_bytes"]
    assert sum(row["parts"].values()) == row["predicted_bytes"] == predicted_memory(QUICK.shape).total
    assert f"predicted {row['ratio']:.2f}x of what was measured" in done.stdout
