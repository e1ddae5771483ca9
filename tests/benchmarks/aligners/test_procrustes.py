"""Procrustes against its formula, and against other rotations."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fusemix.benchmarks.aligners import procrustes
from fusemix.benchmarks.aligners.procrustes import SHARES
from fusemix.errors import FusemixError
from fusemix.latents.paired import PairedLatents
from tests.benchmarks.small_world import encoded_by, small_world

from .by_hand import Matrix, assert_saved_as_it_is, cosines, everything, mrr, pairs_of, statistics, unit


def components(centred: Matrix, count: int) -> Matrix:
    """Return the first principal axes as columns, by the singular value decomposition."""
    return np.asarray(np.linalg.svd(centred, full_matrices=False)[2][:count].T)


# More pairs than dimensions, and fewer.
@pytest.mark.parametrize("dims", [(7, 5), (70, 51)])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_procrustes_is_its_formula(dims: tuple[int, int], share: float) -> None:
    world = small_world(dims=dims, noise=1.0)
    x, y = pairs_of(world)
    means = {name: statistics(world, name)[0] for name in ("image", "text")}
    x, y = x - means["image"], y - means["text"]
    # Items that share a caption add no dimension.
    count = round(share * min(np.linalg.matrix_rank(x), np.linalg.matrix_rank(y)))
    axes_x, axes_y = components(x, count), components(y, count)
    left, _, right = np.linalg.svd((x @ axes_x).T @ (y @ axes_y))
    images = unit((everything(world, "image") - means["image"]) @ axes_x @ left @ right)
    texts = unit((everything(world, "text") - means["text"]) @ axes_y)
    space = procrustes(world, "image", "text", [share])
    assert space.dim == count
    np.testing.assert_allclose(cosines(space, world), images @ texts.T, atol=2e-5)


def test_no_other_rotation_brings_the_pairs_closer() -> None:
    world, rng = small_world(dims=(5, 5), noise=1.0), np.random.default_rng(0)
    space = procrustes(world, "image", "text", [1.0])
    x, y = pairs_of(world)
    maps = {name: space.adapter(name).state_dict()["linear.weight"].double().numpy() for name in ("image", "text")}
    x, y = (values - statistics(world, name)[0] for values, name in ((x, "image"), (y, "text")))
    mapped, target = x @ maps["image"].T, y @ maps["text"].T
    # It is a rotation: lengths stay.
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), np.linalg.norm(x, axis=1), rtol=1e-5)
    best = np.square(mapped - target).sum()
    for size in (0.01, 0.1, 1.0):
        turn, _ = np.linalg.qr(np.eye(5) + size * rng.normal(size=(5, 5)))
        assert np.square(mapped @ turn - target).sum() > best


def test_a_rotation_is_recovered() -> None:
    rng = np.random.default_rng(0)
    images = (rng.normal(size=(200, 8)) * np.arange(1, 9)).astype(np.float32)
    texts = (3 + images @ np.linalg.qr(rng.normal(size=(8, 8)))[0]).astype(np.float32)
    ids = [f"item{index}" for index in range(200)]
    splits = {item: "train" if index < 150 else "val" for index, item in enumerate(ids)}
    latents = PairedLatents.from_arrays({"image": images, "text": texts}, {"image": ids, "text": ids}, splits)
    np.testing.assert_allclose(np.diag(cosines(procrustes(latents, "image", "text"), latents)), 1, atol=1e-4)


def test_the_number_of_components_is_the_best_on_the_validation_split() -> None:
    world = small_world(dims=(12, 9), noise=1.0)
    scores = {share: mrr(procrustes(world, "image", "text", [share]), world) for share in SHARES}
    assert len(set(scores.values())) > 1, "a choice that matters"
    assert mrr(procrustes(world, "image", "text"), world) == max(scores.values())


def test_the_result_is_an_ordinary_joint_space(tmp_path: Path) -> None:
    latents = encoded_by(small_world(dims=(7, 5)), "mine")
    assert_saved_as_it_is(procrustes(latents, "image", "text"), latents, tmp_path)


def test_without_scipy_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.linalg", None)
    with pytest.raises(
        FusemixError, match=r"orthogonal Procrustes needs the package .*pip install 'fusemix\[probes\]'"
    ):
        procrustes(small_world(), "image", "text")
