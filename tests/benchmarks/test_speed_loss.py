"""What `loss` measures on a GPU; that both losses do the same work is tested in `test_speed`."""

from __future__ import annotations

import pytest
import torch

from fusemix.benchmarks.speed import loss
from fusemix.benchmarks.speed.loss import gemm_rate, materialised, on_gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU, it is measured")
def test_without_a_gpu_its_rows_are_left_out_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert on_gpu(quick=False) == []
    assert capsys.readouterr().out == "no GPU here: its rows are left out\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_loss_stands_beside_the_materialised_one_and_its_floor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    [row] = on_gpu(quick=True)
    assert row.keys() >= {"seconds", "extra_bytes", "floor_ratio", "gemm_flops_a_second"}
    assert row["floor_seconds"] == 8 * 256**2 * 512 / row["gemm_flops_a_second"]  # type: ignore[operator]
    assert "B=256, d=512, float32, GPU: time" in capsys.readouterr().out


def test_the_rate_of_a_gemm_counts_two_flops_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(loss, "GEMMS", 3)
    # Each round of three products takes a tick of the clock.
    assert gemm_rate("cpu") == 3 * 2 * 1024**2 * 512


def test_the_materialised_loss_is_that_of_two_cross_entropies() -> None:
    scores = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    identity = torch.eye(6, dtype=torch.float64)
    both = [-torch.log_softmax(side, 1).diagonal().mean() for side in (scores, scores.T)]
    torch.testing.assert_close(materialised(scores, identity, torch.tensor(0.0)), sum(both) / 2)
