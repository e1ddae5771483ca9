from __future__ import annotations

import pytest
import torch

from fusemix.adapters import RelativeAdapter, build_adapter
from fusemix.joint_space import JointSpace

ANCHORS = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))


def adapter(neighbours: int = 4, power: float = 3.0) -> RelativeAdapter:
    made = RelativeAdapter(6, 9, neighbours, power)
    made.standardise_by(torch.arange(6.0), torch.arange(1.0, 7.0))
    made.compare_with(ANCHORS)
    return made


def test_only_the_nearest_anchors_count() -> None:
    found = adapter(neighbours=3)(torch.randn(50, 6))
    assert ((found > 0).sum(dim=1) <= 3).all()
    assert (found >= 0).all()


def test_an_anchor_is_most_like_itself() -> None:
    assert torch.equal(adapter()(ANCHORS).argmax(dim=1), torch.arange(9))


def test_a_large_power_neither_vanishes_nor_overflows() -> None:
    found = JointSpace({"image": adapter(power=200.0)}).encode("image", torch.randn(50, 6))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(50))


def test_a_latent_that_is_like_no_anchor_is_nowhere_and_finite() -> None:
    made = RelativeAdapter(2, 3, 2, 4.0)
    made.compare_with(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.9, 0.0]]))
    assert torch.equal(made(torch.tensor([[-1.0, 0.0], [0.0, 0.0]])), torch.zeros(2, 3))


def test_more_neighbours_than_anchors_are_all_anchors() -> None:
    latents = torch.randn(5, 6)
    assert torch.equal(adapter(neighbours=9)(latents), adapter(neighbours=1000)(latents))


def test_it_is_built_again_from_its_config() -> None:
    config = adapter(power=2.5).config()
    again = build_adapter(config)
    assert isinstance(again, RelativeAdapter)
    assert again.config() == config
    again.load_state_dict(adapter(power=2.5).state_dict())
    latents = torch.randn(5, 6)
    assert torch.equal(again(latents), adapter(power=2.5)(latents))


def test_nothing_of_it_is_trained() -> None:
    assert list(adapter().parameters()) == []


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_length_of_a_latent_does_not_matter(scale: float) -> None:
    made = RelativeAdapter(6, 9, 4, 3.0)
    made.compare_with(ANCHORS)
    latents = torch.randn(5, 6)
    torch.testing.assert_close(made(scale * latents), made(latents))
