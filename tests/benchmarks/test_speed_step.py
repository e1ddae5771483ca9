from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fusemix.adapters.settings import AdapterSettings
from fusemix.benchmarks.speed.measure import Ratio
from fusemix.benchmarks.speed.step import both_ways, plain_step, random_latents, run
from fusemix.objective import Objective
from fusemix.training.feeding import Feeder
from fusemix.training.learner import Learner
from fusemix.training.settings import FuseSettings
from fusemix.training.space import fresh_space

DIMS = {"image": 6, "text": 4}
SETTINGS = FuseSettings(batch_size=8, joint_dim=5, warmup_steps=0, adapter=AdapterSettings(depth=2, dropout=0.0))


def test_the_benchmark_measures_whole_steps_beside_those_on_ready_tensors(capsys: pytest.CaptureFixture[str]) -> None:
    row = run(quick=True)["rows"][0]  # type: ignore[index]
    assert (row["batch_size"], row["dims"], row["device"]) == (64, {"image": 48, "text": 32}, "cpu")
    ratio = Ratio(*row["seconds"].values())
    assert row["time_ratio"] == ratio.value
    assert f"training step, B=64, 48+32 dims, cpu, float32: {ratio}" in capsys.readouterr().out


def test_both_ways_do_the_same_work() -> None:
    latents, objective, cpu = random_latents(48, DIMS), Objective.all_pairs(DIMS), torch.device("cpu")
    feeder = Feeder([latents], SETTINGS, cpu)
    feed = next(iter(feeder.steps(0, 1)))
    trained, plain = (
        Learner(fresh_space([latents], SETTINGS, objective), objective, SETTINGS, torch.float32, feeder.item_ids)
        for _ in range(2)
    )
    trained.step(0, feed)
    for group in plain.optimizer.param_groups:
        group["lr"] = SETTINGS.learning_rate
    plain_step(plain, feed.batch.values)
    for name, weight in trained.space.named_parameters():
        other = plain.space.get_parameter(name)
        assert weight.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(weight.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_both_ways_train_one_space() -> None:
    whole, plain = both_ways(replace(SETTINGS, steps=3), DIMS, torch.device("cpu"))
    whole()
    plain()
    whole()
    with pytest.raises(StopIteration):
        whole()
