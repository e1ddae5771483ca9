from __future__ import annotations

import tracemalloc
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fusemix.adapters.settings import AdapterSettings
from fusemix.errors import FusemixError
from fusemix.training.checkpoint import (
    Checkpoint,
    TrainingState,
    changes,
    check_same,
    flat,
    load_state,
    load_weights,
    save_state,
)
from fusemix.training.settings import FuseSettings

STATE = TrainingState(step=7, best_mrr=0.25, best_step=5, stale=2, finished=True)
EMPTY = Checkpoint(STATE, {}, {}, flat({"fuse": asdict(FuseSettings())}))


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    learner: dict[str, Any] = {
        "space": {"w": torch.randn(3)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}},
    }
    best = {"w": torch.randn(2)}
    save_state(tmp_path / "run" / "state.pt", Checkpoint(STATE, learner, best, {**EMPTY.identity, "fuse.steps": 9}))
    loaded = load_state(tmp_path / "run" / "state.pt")
    assert loaded is not None
    assert loaded.state == STATE
    assert loaded.identity == {**EMPTY.identity, "fuse.steps": 9}
    assert torch.equal(loaded.best["w"], best["w"])
    assert torch.equal(loaded.learner["space"]["w"], learner["space"]["w"])
    assert loaded.learner["optimizer"]["state"][0]["step"] == 3


def test_a_setting_that_a_run_did_not_have_yet_stood_at_its_default(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", Checkpoint(STATE, {}, {}, {"fuse.steps": 9, "dataset": "toys"}))
    loaded = load_state(tmp_path / "state.pt")
    assert loaded is not None
    assert loaded.identity == {**EMPTY.identity, "fuse.steps": 9, "dataset": "toys"}


@pytest.mark.parametrize("parts", [1, 40, 4000])
def test_a_full_disk_is_told_and_the_older_state_stays(tiny_disk: Path, parts: int) -> None:
    path = tiny_disk / "state.pt"
    save_state(path, EMPTY)
    with pytest.raises(FusemixError, match=r"cannot write .*state\.pt: No space left.*free some space"):
        save_state(path, replace(EMPTY, best={f"w{part}": torch.zeros(2_000_000 // parts) for part in range(parts)}))
    assert load_state(path) == EMPTY
    assert list(tiny_disk.iterdir()) == [path]


def test_a_state_is_written_without_a_second_copy_in_memory(tmp_path: Path) -> None:
    size = 2_000_000
    large = replace(EMPTY, best={"w": torch.zeros(size)})
    save_state(tmp_path / "state.pt", EMPTY)
    tracemalloc.start()
    try:
        save_state(tmp_path / "state.pt", large)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert load_state(tmp_path / "state.pt") is None


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_state_is_refused_with_the_remedy(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "state.pt"
    save_state(path, replace(EMPTY, best={"w": torch.randn(300)}))
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


@pytest.mark.parametrize("record", [{}, {"format_version": 1}, {"format_version": 1, "state": {"x": 1}}, [1], None])
def test_what_is_no_state_is_refused(tmp_path: Path, record: Any) -> None:
    torch.save(record, tmp_path / "state.pt")
    with pytest.raises(FusemixError, match="cannot be read"):
        load_state(tmp_path / "state.pt")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format_version": 2}, tmp_path / "state.pt")
    with pytest.raises(FusemixError, match=r"format 2, newer than this fusemix reads: pip install -U fusemix"):
        load_state(tmp_path / "state.pt")


def test_changed_settings_are_refused_with_both_values() -> None:
    before = flat({"fuse": asdict(FuseSettings(adapter=AdapterSettings(dropout=0.2))), "dataset": "f00d"})
    now = flat({"fuse": asdict(FuseSettings(seed=3)), "dataset": "beef"})
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


def test_a_file_of_a_format_that_this_torch_does_not_know_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path / "saved.pt", EMPTY)
    with zipfile.ZipFile(tmp_path / "saved.pt") as old, zipfile.ZipFile(tmp_path / "state.pt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry, b"9999\n" if entry.filename.endswith("/version") else old.read(entry))
    with pytest.raises(
        FusemixError, match=r"state\.pt cannot be read \(.*\); start the run anew with --restart"
    ) as told:
        load_state(tmp_path / "state.pt")
    assert "\n" not in str(told.value)


def test_weights_that_fit_are_taken() -> None:
    one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    load_weights(one, other.state_dict(), "x")
    assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, r"weight was \(2, 4\), now \(2, 3\)\)"),
        ({"weight": torch.zeros(2, 3)}, r"bias was None, now \(2,\)\)"),
        ({"other": torch.zeros(1)}, r"bias was None, now \(2,\) and 2 more\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(saved: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(FusemixError, match=rf"runs/x does not fit .*\({message}: train .* --restart"):
        load_weights(torch.nn.Linear(3, 2), saved, "runs/x")


def test_accepted_changes_give_a_run_its_patience_back() -> None:
    state = TrainingState(step=7, best_mrr=0.25, best_step=5, stale=9, finished=True)
    state.accept(changes({"fuse.steps": 7}, {"fuse.steps": 9}), 9)
    assert state == TrainingState(step=7, best_mrr=0.25, best_step=5)
    state.accept([], 7)
    assert state.finished


def test_a_validation_on_other_data_is_no_bar_to_later_ones() -> None:
    state = TrainingState(step=7, best_mrr=0.25, best_step=5)
    state.accept(changes({"dataset": "a", "fuse.seed": 0}, {"dataset": "b", "fuse.seed": 1}), 9)
    assert (state.best_mrr, state.finished) == (-1.0, False)
