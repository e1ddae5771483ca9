from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fusemix.adapters import Adapter, AdapterSettings, LinearAdapter, MLPAdapter, build_adapter
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


def with_random_weights(adapter: Adapter) -> Adapter:
    rng = torch.Generator().manual_seed(0)
    for parameter in adapter.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng)
    adapter.standardise_by(
        torch.randn(adapter.input_dim, generator=rng), torch.rand(adapter.input_dim, generator=rng)
    )
    return adapter


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_mlp_equals_its_formula(depth: int) -> None:
    adapter = with_random_weights(MLPAdapter(6, 5, depth=depth, expansion=2)).double().eval()
    weights = dict(adapter.state_dict())
    latents = torch.randn(9, 6)
    x = (latents.double() - adapter.mean) * adapter.inverse_std
    for block in range(depth):
        name = f"blocks.{block}.residual"
        hidden = linear(layer_norm(x, weights, f"{name}.0"), weights, f"{name}.1")
        assert hidden.shape == (9, 12)
        x = x + linear(gelu(hidden), weights, f"{name}.4")
    expected = linear(layer_norm(x, weights, f"blocks.{depth}"), weights, f"blocks.{depth + 1}")
    torch.testing.assert_close(adapter(latents), expected, rtol=1e-12, atol=1e-12)


def test_linear_equals_its_formula() -> None:
    adapter = with_random_weights(LinearAdapter(6, 5))
    latents = torch.randn(9, 6)
    expected = ((latents - adapter.mean) * adapter.inverse_std) @ adapter.state_dict()["linear.weight"].T
    torch.testing.assert_close(adapter(latents), expected)


def test_dropout_acts_in_training_only() -> None:
    adapter = MLPAdapter(6, 5, dropout=0.5)
    latents = torch.randn(9, 6)
    assert not torch.equal(adapter.train()(latents), adapter(latents))
    assert torch.equal(adapter.eval()(latents), adapter(latents))


def test_standardisation_centres_scales_and_leaves_constant_dimensions_at_zero() -> None:
    latents = torch.randn(200, 3, dtype=torch.float64) * torch.tensor([2.0, 1e-3, 0.0]) + torch.tensor(
        [5.0, 0.0, 3e4]
    )
    adapter = LinearAdapter(3, 3)
    adapter.linear.weight.data = torch.eye(3)
    adapter.standardise_by(latents.mean(0).float(), latents.std(0, correction=0).float())
    standardised = adapter(latents.float())
    torch.testing.assert_close(standardised.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardised.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-4, rtol=0)
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
    "adapter", [LinearAdapter(6, 5), MLPAdapter(6, 5), MLPAdapter(6, 5, depth=2, expansion=3, dropout=0.1)]
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


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [("depth", -1, "at least 0"), ("expansion", 0, "at least 1"), ("dropout", 1.0, r"in \[0, 1\)")],
)
def test_settings_out_of_bounds_are_refused_by_name(name: str, value: float, bounds: str) -> None:
    with pytest.raises(FusemixError, match=rf"adapter setting {name} is {value}: it must be {bounds}"):
        AdapterSettings(**{name: value})  # type: ignore[arg-type]


def test_the_folder_refuses_to_be_imported_under_another_name() -> None:
    done = subprocess.run([sys.executable, "-c", "import adapters"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "import fusemix.adapters" in done.stderr
