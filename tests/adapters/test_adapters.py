from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fusemix.adapters import Adapter, GatedAdapter, IdentityAdapter, LinearAdapter, MLPAdapter, build_adapter
from fusemix.errors import FusemixError

ROOT = Path(__file__).parents[2]


def layer_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def with_random_weights(adapter: Adapter) -> Adapter:
    rng = torch.Generator().manual_seed(0)
    for parameter in adapter.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng)
    adapter.standardise_by(
        torch.randn(adapter.input_dim, generator=rng), torch.rand(adapter.input_dim, generator=rng)
    )
    return adapter


def standardised(latents: Tensor, adapter: Adapter) -> Tensor:
    return (latents.double() - adapter.mean.double()) * adapter.inverse_std.double()


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_mlp_equals_its_formula(depth: int) -> None:
    adapter = with_random_weights(MLPAdapter(6, 5, depth=depth, expansion=2)).double().eval()
    weights = dict(adapter.state_dict())
    latents = torch.randn(9, 6)
    x = standardised(latents, adapter)
    for block in range(depth):
        name = f"blocks.{block}.residual"
        hidden = linear(layer_norm(x, weights, f"{name}.0"), weights, f"{name}.1")
        assert hidden.shape == (9, 12)
        x = x + linear(gelu(hidden), weights, f"{name}.4")
    expected = linear(layer_norm(x, weights, f"blocks.{depth}"), weights, f"blocks.{depth + 1}")
    torch.testing.assert_close(adapter(latents), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_gated_equals_its_formula(depth: int) -> None:
    adapter = with_random_weights(GatedAdapter(6, 5, depth=depth, expansion=2)).double().eval()
    weights = dict(adapter.state_dict())
    latents = torch.randn(9, 6)
    x = standardised(latents, adapter)
    for block in range(depth):
        name = f"blocks.{block}"
        both = linear(layer_norm(x, weights, f"{name}.norm"), weights, f"{name}.gate_and_value")
        assert both.shape == (9, 24)
        x = x + linear(silu(both[:, :12]) * both[:, 12:], weights, f"{name}.narrow")
    expected = linear(layer_norm(x, weights, f"blocks.{depth}"), weights, f"blocks.{depth + 1}")
    torch.testing.assert_close(adapter(latents), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [GatedAdapter, MLPAdapter])
@pytest.mark.parametrize("depth", [0, 2])
def test_blocks_are_no_wider_than_they_may_be(kind: type[GatedAdapter | MLPAdapter], depth: int) -> None:
    narrowed = with_random_weights(kind(6, 5, depth=depth, expansion=2, max_width=4)).double().eval()
    weights = dict(narrowed.state_dict())
    blocks = kind(4, 5, depth=depth, expansion=2).double().eval()
    blocks.load_state_dict(
        {name: weights.get(name, own) for name, own in blocks.state_dict().items()}
        | {"mean": torch.zeros(4), "inverse_std": torch.ones(4)}
    )
    latents = torch.randn(9, 6)
    expected = blocks.project(linear(standardised(latents, narrowed), weights, "narrow"))
    torch.testing.assert_close(narrowed(latents), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("max_width", [6, 7, None])
def test_latents_that_are_not_too_long_are_not_narrowed(max_width: int | None) -> None:
    torch.manual_seed(0)
    adapter = MLPAdapter(6, 5, max_width=max_width)
    torch.manual_seed(0)
    plain = MLPAdapter(6, 5)
    assert adapter.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(weights, plain.state_dict()[name]) for name, weights in adapter.state_dict().items())


def test_what_narrows_latents_gives_the_blocks_float32_under_autocast() -> None:
    adapter = MLPAdapter(6, 5, depth=1, max_width=4)
    seen: list[torch.dtype] = []
    adapter.blocks.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        adapter(torch.randn(9, 6))
    assert seen == [torch.float32]


def test_linear_equals_its_formula() -> None:
    adapter = with_random_weights(LinearAdapter(6, 5)).double()
    latents = torch.randn(9, 6)
    expected = standardised(latents, adapter) @ adapter.state_dict()["linear.weight"].T
    torch.testing.assert_close(adapter(latents), expected, rtol=1e-12, atol=1e-12)


def test_identity_is_the_latents_whatever_their_statistics() -> None:
    adapter = IdentityAdapter(6, 6)
    assert list(adapter.parameters()) == []
    adapter.standardise_by(torch.full((6,), 3.0), torch.full((6,), 2.0))
    latents = torch.randn(9, 6).half()
    assert torch.equal(adapter.train()(latents), latents.float())


def test_identity_cannot_change_the_dimension() -> None:
    with pytest.raises(
        FusemixError, match=r"latents, 1536, but the joint space has 512: set fuse\.joint_dim to 1536"
    ):
        IdentityAdapter(1536, 512)


@pytest.mark.parametrize("kind", [GatedAdapter, MLPAdapter])
def test_dropout_acts_in_training_only_and_in_the_hidden_layer(kind: type[GatedAdapter | MLPAdapter]) -> None:
    latents = torch.randn(9, 6)
    adapter = kind(6, 5, dropout=0.5)
    assert not torch.equal(adapter.train()(latents), adapter(latents))
    assert torch.equal(adapter.eval()(latents), adapter(latents))
    # Without a hidden layer there is nothing to drop.
    shallow = kind(6, 5, depth=0, dropout=0.5).train()
    assert torch.equal(shallow(latents), shallow(latents))


@pytest.mark.parametrize("kind", [GatedAdapter, LinearAdapter, MLPAdapter])
def test_noise_replays_from_the_global_generator_and_acts_in_training_only(
    kind: type[GatedAdapter | LinearAdapter | MLPAdapter],
) -> None:
    adapter, latents = kind(6, 5, noise=0.5).train(), torch.randn(9, 6)
    torch.manual_seed(3)
    first = adapter(latents)
    assert not torch.equal(adapter(latents), first)
    torch.manual_seed(3)
    assert torch.equal(adapter(latents), first)
    assert torch.equal(adapter.eval()(latents), adapter(latents))


def test_noise_is_gaussian_on_the_standardised_latents() -> None:
    torch.manual_seed(0)
    adapter = LinearAdapter(2, 2, noise=0.3).train()
    adapter.linear.weight.data = torch.eye(2)
    adapter.standardise_by(torch.tensor([5.0, -1.0]), torch.tensor([100.0, 0.01]))
    latents = torch.tensor([[105.0, -0.99]]).expand(40_000, 2)
    noise = adapter(latents).detach() - 1
    # Standard errors: 0.3 / 200 of the mean, 0.3 / sqrt(80,000) of the deviation, sqrt(24 / 40,000) of the kurtosis.
    torch.testing.assert_close(noise.mean(0), torch.zeros(2), atol=0.008, rtol=0)
    torch.testing.assert_close(noise.std(0), torch.full((2,), 0.3), atol=0.006, rtol=0)
    torch.testing.assert_close((noise / 0.3).pow(4).mean(0), torch.full((2,), 3.0), atol=0.15, rtol=0)
    assert abs(torch.corrcoef(noise.T)[0, 1]) < 0.025


def test_without_noise_nothing_is_drawn() -> None:
    before = torch.get_rng_state()
    adapter = LinearAdapter(6, 5).train()
    drawn = torch.get_rng_state()
    adapter(torch.randn(9, 6, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(before, drawn)
    assert torch.equal(torch.get_rng_state(), drawn)


def test_standardisation_centres_scales_and_leaves_constant_dimensions_at_zero() -> None:
    latents = torch.randn(200, 3, dtype=torch.float64) * torch.tensor([2.0, 1e-3, 0.0]) + torch.tensor(
        [5.0, 0.0, 3e4]
    )
    adapter = LinearAdapter(3, 3)
    adapter.linear.weight.data = torch.eye(3)
    adapter.standardise_by(latents.mean(0).float(), latents.std(0, correction=0).float())
    found = adapter(latents.float())
    torch.testing.assert_close(found.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-4, rtol=0)
    assert adapter.inverse_std[2] == 1


def test_rounding_noise_of_a_large_constant_is_not_blown_up() -> None:
    adapter = LinearAdapter(1, 1)
    adapter.standardise_by(torch.tensor([1000.0]), torch.tensor([1e-5]))
    assert adapter.inverse_std.item() == 1


def test_float16_latents_are_standardised_in_float32() -> None:
    adapter = LinearAdapter(1, 1)
    adapter.linear.weight.data = torch.eye(1)
    adapter.standardise_by(torch.tensor([2048.0]), torch.tensor([1.0]))
    assert adapter(torch.tensor([[2050.0]]).half()).item() == 2


def test_statistics_travel_with_the_weights_and_are_not_trained() -> None:
    adapter = MLPAdapter(6, 5)
    assert {"mean", "inverse_std"} <= adapter.state_dict().keys()
    assert {"mean", "inverse_std"}.isdisjoint(name for name, _ in adapter.named_parameters())


@pytest.mark.parametrize(
    "adapter",
    [
        IdentityAdapter(6, 6),
        LinearAdapter(6, 5),
        LinearAdapter(6, 5, noise=0.2),
        MLPAdapter(6, 5),
        MLPAdapter(6, 5, depth=2, expansion=3, dropout=0.1, noise=0.2),
        GatedAdapter(6, 5),
        GatedAdapter(6, 5, depth=2, expansion=3, dropout=0.1, noise=0.2),
    ],
)
def test_config_rebuilds_the_adapter(adapter: Adapter) -> None:
    with_random_weights(adapter).eval()
    again = build_adapter(adapter.config())
    again.load_state_dict(adapter.state_dict())
    latents = torch.randn(4, 6)
    assert type(again) is type(adapter)
    assert again.config() == adapter.config()
    assert torch.equal(again.eval()(latents), adapter(latents))


def test_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(FusemixError, match="unknown adapter kind 'linea': did you mean 'linear'"):
        build_adapter({"kind": "linea", "input_dim": 1, "joint_dim": 1})


def test_the_folder_refuses_to_be_imported_under_another_name() -> None:
    done = subprocess.run([sys.executable, "-c", "import adapters"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "import fusemix.adapters" in done.stderr
