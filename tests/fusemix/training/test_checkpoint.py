from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fusemix.adapters.settings import AdapterSettings
from fusemix.errors import FusemixError
from fusemix.training.checkpoint import (
    MetricsLog,
    TrainingState,
    check_same,
    identity,
    load_state,
    save_state,
)
from fusemix.training.settings import FuseSettings

STATE = TrainingState(step=7, best_mrr=0.25, best_step=5, stale=2, finished=True, skipped=1)


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {
        "space": {"w": torch.randn(3)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}},
    }
    save_state(tmp_path / "run" / "state.pt", STATE, tensors, {"fuse.steps": 9})
    loaded = load_state(tmp_path / "run" / "state.pt")
    assert loaded is not None
    state, again, settings = loaded
    assert state == STATE
    assert settings == {"fuse.steps": 9}
    assert torch.equal(again["space"]["w"], tensors["space"]["w"])
    assert again["optimizer"]["state"][0]["step"] == 3


def test_a_full_disk_is_told_and_the_older_state_stays(tiny_disk: Path) -> None:
    path = tiny_disk / "state.pt"
    save_state(path, STATE, {}, {})
    with pytest.raises(FusemixError, match=r"cannot write .*state\.pt: No space left.*free some space"):
        save_state(path, STATE, {"space": {"w": torch.zeros(2_000_000)}}, {})
    assert load_state(path) == (STATE, {}, {})
    assert list(tiny_disk.iterdir()) == [path]


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert load_state(tmp_path / "state.pt") is None


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_state_is_refused_with_the_remedy(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "state.pt"
    save_state(path, STATE, {"space": {"w": torch.randn(300)}}, {})
    raw = path.read_bytes()
    path.write_bytes(raw[: int(kept * len(raw))])
    with pytest.raises(FusemixError, match=r"state\.pt cannot be read .*--restart"):
        load_state(path)


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_planted_in_a_state_never_runs(tmp_path: Path) -> None:
    torch.save({"space": Planted(tmp_path / "owned")}, tmp_path / "state.pt")
    with pytest.raises(FusemixError, match="cannot be read"):
        load_state(tmp_path / "state.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("record", [{}, {"format_version": 1}, {"format_version": 1, "settings": {}}, [1], None])
def test_what_is_no_state_is_refused(tmp_path: Path, record: Any) -> None:
    torch.save(record, tmp_path / "state.pt")
    with pytest.raises(FusemixError, match="cannot be read"):
        load_state(tmp_path / "state.pt")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format_version": 2}, tmp_path / "state.pt")
    with pytest.raises(FusemixError, match=r"format 2, newer than this fusemix reads: pip install -U fusemix"):
        load_state(tmp_path / "state.pt")


def test_changed_settings_are_refused_with_both_values() -> None:
    before = identity(FuseSettings(adapter=AdapterSettings(dropout=0.2)), {"dataset": "f00d"})
    now = identity(FuseSettings(seed=3), {"dataset": "beef"})
    check_same(before, dict(before), Path("runs/x"))
    with pytest.raises(FusemixError) as refused:
        check_same(before, now, Path("runs/x"))
    message = str(refused.value)
    assert message.startswith("runs/x was started with other settings")
    for change in (
        "fuse.adapter.dropout was 0.2, now 0.6",
        "fuse.seed was 0, now 3",
        "dataset was 'f00d', now 'beef'",
    ):
        assert change in message
    assert "fuse.steps" not in message


def test_a_setting_that_appears_or_goes_is_a_change() -> None:
    with pytest.raises(FusemixError, match="new was None, now 1; old was 2, now None"):
        check_same({"old": 2}, {"new": 1}, Path("x"))


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
