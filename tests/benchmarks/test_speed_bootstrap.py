"""The loop that the bootstrap is compared with does the same work."""

from __future__ import annotations

import numpy as np
import pytest

from fusemix.benchmarks.speed import bootstrap
from fusemix.benchmarks.speed.measure import Ratio


def test_the_bootstrap_is_measured_beside_a_loop(capsys: pytest.CaptureFixture[str]) -> None:
    result = bootstrap.run(quick=True)
    seconds = result["seconds"]
    assert isinstance(seconds, dict)
    assert result["time_ratio"] == Ratio(seconds["bootstrap"], seconds["loop"]).value
    assert "50 draws over 1000 queries of 200 items, 5 means and a median: " in capsys.readouterr().out


def test_the_loop_resamples_every_item_with_all_its_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(np, "median", drawn.append)
    of = np.array([2, 0, 1, 2, 0])
    bootstrap.plain_loop(np.zeros((1, 5)), of.astype(np.float64), of, items=3, draws=20)()
    assert len(drawn) == 20
    for items in drawn:
        counts = {item: int((items == item).sum()) for item in range(3)}
        assert counts[0] // 2 + counts[1] + counts[2] // 2 == 3
        assert counts[0] % 2 == counts[2] % 2 == 0
