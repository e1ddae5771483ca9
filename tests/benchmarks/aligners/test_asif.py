"""ASIF against its definition, anchor by anchor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fusemix.benchmarks.aligners import asif
from fusemix.benchmarks.aligners.asif import NEIGHBOURS_AND_POWERS
from tests.benchmarks.small_world import encoded_by, small_world

from .by_hand import Matrix, assert_saved_as_it_is, cosines, everything, mrr, pairs_of, statistics, unit


def relative(latents: Matrix, anchors: Matrix, neighbours: int, power: float) -> Matrix:
    """Return relative representations, written one number after the other."""
    found = np.zeros((len(latents), len(anchors)))
    for row, latent in enumerate(latents):
        likeness = [float(latent @ anchor / np.linalg.norm(latent) / np.linalg.norm(anchor)) for anchor in anchors]
        for anchor in sorted(range(len(anchors)), key=lambda place: -likeness[place])[:neighbours]:
            found[row, anchor] = max(likeness[anchor], 0) ** power
    return found


@pytest.mark.parametrize(("neighbours", "power"), [(1, 1.0), (3, 8.0), (1000, 2.5)])
def test_asif_is_its_definition(neighbours: int, power: float) -> None:
    world = small_world(dims=(7, 5), noise=1.0)
    expected = []
    for name, anchors in zip(("image", "text"), pairs_of(world), strict=True):
        mean, _ = statistics(world, name)
        expected.append(relative(everything(world, name) - mean, anchors - mean, neighbours, power))
    space = asif(world, "image", "text", [(neighbours, power)])
    for name, right in zip(("image", "text"), expected, strict=True):
        found = space.encode(name, world[name].values).double().numpy()
        np.testing.assert_allclose(found, unit(right), atol=2e-5)


def test_of_many_pairs_some_are_anchors_and_always_the_same() -> None:
    world = small_world(dims=(7, 5))
    first, second = (asif(world, "image", "text", [(5, 2.0)], most_anchors=11) for _ in range(2))
    assert first.dim == 11
    assert np.array_equal(cosines(first, world), cosines(second, world))
    every = asif(world, "image", "text", [(5, 2.0)])
    anchors, all_of_them = (space.adapter("text").state_dict()["anchors"] for space in (first, every))
    assert all(bool((all_of_them == anchor).all(dim=1).any()) for anchor in anchors)
    assert len(torch.unique(anchors, dim=0)) == 11


def test_neighbours_and_power_are_the_best_on_the_validation_split() -> None:
    world = small_world(dims=(12, 9), noise=1.0)
    scores = [mrr(asif(world, "image", "text", [pair]), world) for pair in NEIGHBOURS_AND_POWERS]
    assert len(set(scores)) > 1, "a choice that matters"
    assert mrr(asif(world, "image", "text"), world) == max(scores)


def test_the_result_is_an_ordinary_joint_space(tmp_path: Path) -> None:
    latents = encoded_by(small_world(dims=(7, 5)), "mine")
    assert_saved_as_it_is(asif(latents, "image", "text", [(4, 3.0)]), latents, tmp_path)
