"""What `fuse` says of memory before it trains."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fusemix.training import trainer
from fusemix.training.fuse import fuse
from tests.fusemix.synthetic import world
from tests.fusemix.training.short_runs import SHORT


def test_the_peak_of_a_step_is_told_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    fuse(world(), replace(SHORT, steps=1), device="cpu")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("memory: ")]
    assert line.startswith("memory: a step will take ")
    assert "that may be more" not in line


def test_where_memory_is_short_it_says_what_would_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.device] = []

    def little(device: torch.device) -> int:
        asked.append(device)
        return 1000

    monkeypatch.setattr(trainer, "free_memory", little)
    fuse(world(), replace(SHORT, steps=1), device="cpu")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("memory: ")]
    assert "that may be more than the 1 KB that are free in memory: " in line
    assert asked == [torch.device("cpu")]
