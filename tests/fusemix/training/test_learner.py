from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fusemix.adapters.settings import AdapterSettings
from fusemix.batch import LatentBatch
from fusemix.edge import Edge
from fusemix.joint_space import JointSpace
from fusemix.objective import Objective
from fusemix.training.feeding import Feed
from fusemix.training.learner import Learner, NotFiniteError
from fusemix.training.settings import FuseSettings
from fusemix.training.space import fresh_space
from tests.fusemix.synthetic import world

SETTINGS = FuseSettings(
    steps=10, warmup_steps=0, batch_size=12, joint_dim=8, adapter=AdapterSettings(expansion=2, dropout=0.3)
)
EDGES = Objective((Edge("image", "text", loss="sigmoid"),))
# Its gradients are small enough for float16, scaled as they are at first.
SMALL = Objective((Edge("image", "text", temperature=0.5),))


class Scaled(Objective):
    """A loss times a factor that a test sets."""

    factor = 1.0

    def __call__(self, embeddings: Any, batch: LatentBatch, space: JointSpace) -> Any:
        loss, edges = super().__call__(embeddings, batch, space)
        return loss * self.factor, edges


class _Explode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * math.inf


class Exploding(Objective):
    """A finite loss with infinite gradients at some of its calls."""

    calls = ()

    def __call__(self, embeddings: Any, batch: LatentBatch, space: JointSpace) -> Any:
        loss, edges = super().__call__(embeddings, batch, space)
        first, *self.calls = self.calls or [False]  # type: ignore[assignment]
        return (_Explode.apply(loss) if first else loss), edges  # type: ignore[no-untyped-call]


def ids(items: Tensor) -> list[str]:
    return [f"item{item}" for item in items.tolist()]


def make(objective: Objective = EDGES, dtype: torch.dtype = torch.float32, **change: Any) -> Learner:
    settings = replace(SETTINGS, **change)
    return Learner(fresh_space([world().split("train")], settings, objective), objective, settings, dtype, ids)


def make_feed(seed: int = 0) -> Feed:
    rng = torch.Generator().manual_seed(seed)
    values = {"image": torch.randn(12, 24, generator=rng), "text": torch.randn(12, 16, generator=rng)}
    present = {name: torch.arange(12) != 5 for name in values}
    content = {name: torch.arange(24).reshape(12, 2) + 100 * number for number, name in enumerate(values)}
    return Feed(LatentBatch(values, present, torch.arange(24).reshape(12, 2), content), 0.25)


def weights(learner: Learner) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in learner.space.named_parameters()}


def test_a_step_tells_its_figures() -> None:
    learner = make()
    before = weights(learner)
    figures = learner.step(3, make_feed())
    assert list(figures) == [
        "loss", "loss/image-text", "temperature/shared", "bias/image-text", "gradient_norm", "learning_rate",
        "lambda", "skipped",
    ]  # fmt: skip
    assert figures["lambda"] == 0.25
    assert figures["temperature/shared"] == pytest.approx(math.exp(-float(before["log_scales.shared"])), rel=1e-6)
    assert figures["bias/image-text"] == -10.0
    gradients = [weight.grad for weight in learner.space.parameters()]
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients if g is not None))
    assert figures["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert learner.optimizer.param_groups[0]["lr"] == figures["learning_rate"] < SETTINGS.learning_rate
    assert learner.mean_temperature(figures) == figures["temperature/shared"]


def test_slices_and_steps_have_dropout_of_their_own_and_without_it_are_alike() -> None:
    def losses(dropout: float, micro_batch: int | None = None) -> list[float]:
        adapter = AdapterSettings(expansion=2, dropout=dropout)
        learner = make(adapter=adapter, micro_batch=micro_batch, learning_rate=1e-30, final_learning_rate=0.0)
        return [learner.step(step, make_feed())["loss"] for step in range(2)]

    assert len({*losses(0.3), *losses(0.3, micro_batch=4)}) == 4
    assert losses(0.0, micro_batch=4) == pytest.approx([losses(0.0)[0]] * 2, rel=1e-6)


def test_gradients_longer_than_the_clip_are_scaled_down_to_it_and_told_as_they_were() -> None:
    free, clipped, loose = make(), make(clip_norm=0.01), make(clip_norm=1e6)
    norms = [learner.step(0, make_feed())["gradient_norm"] for learner in (free, clipped, loose)]
    assert norms[0] == norms[1] == norms[2] > 0.1
    for name, weight in free.space.named_parameters():
        small, same = clipped.space.get_parameter(name).grad, loose.space.get_parameter(name).grad
        assert weight.grad is not None
        assert small is not None
        assert same is not None
        torch.testing.assert_close(small, weight.grad * (0.01 / norms[0]), rtol=1e-4, atol=1e-9)
        assert torch.equal(same, weight.grad)


def test_bfloat16_trains_on_a_cpu_and_is_not_float32() -> None:
    exact, rough = make(), make(dtype=torch.bfloat16)
    losses = [learner.step(0, make_feed())["loss"] for learner in (exact, rough)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert all(weight.dtype == torch.float32 for weight in rough.space.parameters())
    assert str(rough) == "adapters compute in bfloat16 on the CPU"
    assert str(make(micro_batch=4)) == "adapters compute in float32 on the CPU, 4 items at once"


def test_float16_scales_the_loss_and_takes_the_same_step() -> None:
    exact = make(SMALL, clip_norm=0.5)
    half = make(SMALL, torch.float16, clip_norm=0.5)
    assert half.scaler.get_scale() == 65536.0
    told = [learner.step(0, make_feed()) for learner in (exact, half)]
    assert told[0]["gradient_norm"] == pytest.approx(told[1]["gradient_norm"], rel=0.02)
    assert str(half) == "adapters compute in float16 on the CPU, with a scaled loss"
    gradient = exact.space.adapter("image").get_parameter("blocks.2.weight").grad
    assert gradient is not None
    torch.testing.assert_close(
        half.space.adapter("image").get_parameter("blocks.2.weight").grad, gradient, rtol=0.1, atol=1e-3
    )


def test_gradients_that_overflow_float16_are_skipped_counted_and_their_scale_lowered() -> None:
    objective = Exploding(SMALL.edges)
    learner = make(objective, torch.float16)
    objective.calls = (False, True, True, False)  # type: ignore[assignment]
    learner.step(0, make_feed())
    before = weights(learner)
    skipped = [learner.step(step, make_feed(step))["skipped"] for step in (1, 2)]
    assert skipped == [1, 2]
    assert learner.scaler.get_scale() == 65536.0 / 4
    assert all(torch.equal(weight, before[name]) for name, weight in weights(learner).items())
    assert learner.step(3, make_feed(3))["skipped"] == 2
    moved = "adapters.image.blocks.2.weight"
    assert not torch.equal(weights(learner)[moved], before[moved])


def test_float16_stops_where_no_lower_scale_helps() -> None:
    objective = Exploding(SMALL.edges)
    learner = make(objective, torch.float16)
    objective.calls = (True,) * 17  # type: ignore[assignment]
    assert [learner.step(step, make_feed())["skipped"] for step in range(16)] == list(range(1, 17))
    with pytest.raises(NotFiniteError, match="the gradients of step 16 are not finite"):
        learner.step(16, make_feed())


@pytest.mark.parametrize("change", [{}, {"dtype": torch.bfloat16}, {"micro_batch": 5}])
def test_gradients_that_are_not_finite_stop_the_run_before_they_spoil_weights(change: dict[str, Any]) -> None:
    objective = Exploding(EDGES.edges)
    objective.calls = (True,)  # type: ignore[assignment]
    learner = make(objective, **change)
    before = weights(learner)
    with pytest.raises(
        NotFiniteError, match=r"the gradients of step 4 are not finite, first that of adapters\.image\.\S+$"
    ):
        learner.step(4, make_feed())
    assert all(torch.equal(weight, before[name]) for name, weight in weights(learner).items())


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_before_it_spoils_weights(factor: float) -> None:
    objective = Scaled(EDGES.edges)
    objective.factor = factor
    learner = make(objective)
    before = weights(learner)
    with pytest.raises(
        NotFiniteError, match=rf"the loss of step 4 is {factor} \(temperature 0\.07; image: norms up to"
    ):
        learner.step(4, make_feed())
    assert all(torch.equal(weight, before[name]) for name, weight in weights(learner).items())


def test_a_state_goes_on_with_the_same_numbers() -> None:
    whole, half = make(clip_norm=0.5), make(clip_norm=0.5)
    expected = [whole.step(step, make_feed(step)) for step in range(6)]
    found = [half.step(step, make_feed(step)) for step in range(3)]
    again = make(clip_norm=0.5)
    again.restore(half.state(), "x")
    found += [again.step(step, make_feed(step)) for step in range(3, 6)]
    assert found == expected
    assert all(torch.equal(weight, weights(again)[name]) for name, weight in weights(whole).items())


def test_a_scaled_run_goes_on_with_its_scale() -> None:
    objective = Exploding(SMALL.edges)
    learner = make(objective, torch.float16)
    objective.calls = (False, True)  # type: ignore[assignment]
    for step in range(2):
        learner.step(step, make_feed())
    again = make(objective, torch.float16)
    again.restore(learner.state(), "x")
    assert (again.scaler.get_scale(), again.skipped) == (32768.0, 1)
    plain = make(SMALL)
    plain.restore(learner.state(), "x")
    assert plain.scaler.get_scale() == 1.0


def test_no_vector_temperature_or_bias_decays_and_matrices_do() -> None:
    with_decay, without = make(weight_decay=0.5), make(weight_decay=0.0)
    for learner in (with_decay, without):
        learner.step(0, make_feed())
    for name, weight in weights(with_decay).items():
        assert torch.equal(weight, weights(without)[name]) == (weight.ndim < 2), name
