"""Ridge against the normal equations, and what its penalty may depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusemix.benchmarks.aligners import PENALTIES, ridge
from fusemix.errors import FusemixError
from fusemix.latents.paired import PairedLatents
from tests.benchmarks.small_world import encoded_by, small_world

from .by_hand import assert_saved_as_it_is, everything, mrr, pairs_of, statistics, unit

DIMS = (7, 5)


@pytest.fixture
def world() -> PairedLatents:
    return small_world(dims=DIMS, noise=1.0)


def fill_split(latents: PairedLatents, split: str, seed: int) -> None:
    """Replace the latents of a split by noise."""
    for of in latents.split(split).modalities.values():
        of.values[of.rows] = torch.randn(
            len(of.rows), of.values.shape[1], generator=torch.Generator().manual_seed(seed)
        )


# More pairs than dimensions, and fewer.
@pytest.mark.parametrize("dims", [DIMS, (60, 5)])
@pytest.mark.parametrize("penalty", [0.01, 3.0, 1e4])
def test_ridge_solves_the_normal_equations(dims: tuple[int, int], penalty: float) -> None:
    world = small_world(dims=dims, noise=1.0)
    space = ridge(world, "image", "text", [penalty])
    (mean, std), (target, _) = statistics(world, "image"), statistics(world, "text")
    x, y = pairs_of(world)
    x, y = (x - mean) / std, y - target
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(dims[0]), x.T @ y)
    expected = {
        "image": unit((everything(world, "image") - mean) / std @ weights),
        "text": unit(everything(world, "text") - target),
    }
    for modality in ("image", "text"):
        found = space.encode(modality, world[modality].values).numpy()
        np.testing.assert_allclose(found, expected[modality], atol=1e-4)


def test_the_penalty_is_the_best_on_the_validation_split(world: PairedLatents) -> None:
    scores = {penalty: mrr(ridge(world, "image", "text", [penalty]), world) for penalty in PENALTIES}
    assert len(set(scores.values())) > 1, "a choice that matters"
    assert mrr(ridge(world, "image", "text"), world) == max(scores.values())


@pytest.mark.parametrize("order", [1, -1])
def test_the_choice_does_not_follow_the_order_of_the_penalties(world: PairedLatents, order: int) -> None:
    best = max(PENALTIES, key=lambda penalty: mrr(ridge(world, "image", "text", [penalty]), world))
    chosen = ridge(world, "image", "text", [best, 1e12][::order])
    alone = ridge(world, "image", "text", [best])
    assert torch.equal(chosen.encode("image", world["image"].values), alone.encode("image", world["image"].values))


def test_test_items_change_nothing(world: PairedLatents) -> None:
    before = ridge(world, "image", "text").state_dict()
    fill_split(world, "test", seed=0)
    after = ridge(world, "image", "text").state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_validation_items_choose_and_do_not_fit(world: PairedLatents) -> None:
    fixed, free = ridge(world, "image", "text", [1.0]).state_dict(), ridge(world, "image", "text").state_dict()
    fill_split(world, "val", seed=0)
    assert all(torch.equal(fixed[k], v) for k, v in ridge(world, "image", "text", [1.0]).state_dict().items())
    assert any(not torch.equal(free[k], v) for k, v in ridge(world, "image", "text").state_dict().items())


def test_ridge_maps_either_way(world: PairedLatents) -> None:
    assert ridge(world, "image", "text").dim == DIMS[1]
    assert ridge(world, "text", "image").dim == DIMS[0]


def test_ridge_recovers_a_linear_map() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(200, 8)).astype(np.float32)
    texts = 3 + images @ rng.normal(size=(8, 8)).astype(np.float32)
    ids = [f"item{index}" for index in range(200)]
    splits = {item: "train" if index < 150 else "val" for index, item in enumerate(ids)}
    latents = PairedLatents.from_arrays({"image": images, "text": texts}, {"image": ids, "text": ids}, splits)
    space = ridge(latents, "image", "text")
    assert mrr(space, latents) == 1
    torch.testing.assert_close(
        space.encode("image", latents["image"].values),
        space.encode("text", latents["text"].values),
        atol=1e-3,
        rtol=0,
    )


def test_dimensions_that_never_vary_do_no_harm(world: PairedLatents) -> None:
    world["image"].values[:, 2] = 5.0
    assert torch.isfinite(ridge(world, "image", "text").encode("image", world["image"].values)).all()


def test_items_of_which_none_has_both_modalities_are_refused() -> None:
    values = np.ones((4, 3), np.float32)
    items = {"image": ["a", "b", "c", "d"], "text": ["e", "f", "g", "h"]}
    splits = dict.fromkeys("abcdefgh", "train")
    latents = PairedLatents.from_arrays({"image": values, "text": values}, items, splits)
    with pytest.raises(FusemixError, match="no item of the training split has both image and text: nothing to align"):
        ridge(latents, "image", "text", [1.0])


def test_the_result_is_an_ordinary_joint_space(world: PairedLatents, tmp_path: Path) -> None:
    latents = encoded_by(world, "mine")
    assert_saved_as_it_is(ridge(latents, "image", "text"), latents, tmp_path)


def test_a_refit_fits_the_chosen_penalty_on_both_splits(world: PairedLatents) -> None:
    best = max(PENALTIES, key=lambda penalty: mrr(ridge(world, "image", "text", [penalty]), world))
    both = np.array(["train" if split == "val" else split for split in world.splits], object)
    expected = ridge(replace(world, splits=both), "image", "text", [best]).state_dict()
    found = ridge(world, "image", "text", refit=True).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)
