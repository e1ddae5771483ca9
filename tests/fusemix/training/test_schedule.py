from __future__ import annotations

import math

import pytest
import torch

from fusemix.adapters import MLPAdapter
from fusemix.joint_space import JointSpace
from fusemix.training.schedule import learning_rate, make_optimizer
from fusemix.training.settings import FuseSettings

LOW, HIGH = 1e-6, 1e-3


@pytest.mark.parametrize("warmup", [0, 1, 7, 20])
def test_linear_warm_up_then_half_a_cosine(warmup: int) -> None:
    settings = FuseSettings(steps=20, warmup_steps=warmup, learning_rate=HIGH, final_learning_rate=LOW)
    for step in range(20):
        if step < warmup:
            expected = LOW + step * (HIGH - LOW) / warmup
        else:
            expected = LOW + (HIGH - LOW) * math.cos(math.pi / 2 * (step - warmup) / (20 - warmup)) ** 2
        assert learning_rate(step, settings) == pytest.approx(expected, rel=1e-12)


def test_both_ends_and_the_top() -> None:
    settings = FuseSettings(steps=100, warmup_steps=10, learning_rate=HIGH, final_learning_rate=LOW)
    rates = [learning_rate(step, settings) for step in range(101)]
    assert (rates[0], rates[10], rates[100]) == pytest.approx((LOW, HIGH, LOW))
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_warm_up_longer_than_the_run_is_no_error() -> None:
    settings = FuseSettings(steps=5, warmup_steps=10, learning_rate=HIGH, final_learning_rate=0)
    assert [learning_rate(step, settings) for step in range(5)] == pytest.approx([HIGH * s / 10 for s in range(5)])


def test_only_matrices_decay_and_every_parameter_is_optimised_once() -> None:
    space = JointSpace({"image": MLPAdapter(4, 3), "text": MLPAdapter(5, 3)}, {"shared": 0.07})
    optimizer = make_optimizer(space, FuseSettings(weight_decay=0.25))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert (
        sum(len(group["params"]) for group in optimizer.param_groups) == len(list(space.parameters())) == len(decay)
    )
    for name, parameter in space.named_parameters():
        matrix = name.endswith("weight") and not isinstance(
            space.get_submodule(name.rpartition(".")[0]), torch.nn.LayerNorm
        )
        assert decay[id(parameter)] == (0.25 if matrix else 0.0), name
