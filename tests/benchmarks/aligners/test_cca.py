"""CCA against the generalised eigenproblem that defines it, and without a penalty against scikit-learn's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from sklearn.cross_decomposition import CCA

from fusemix.benchmarks.aligners import cca
from fusemix.benchmarks.aligners.cca import PENALTIES
from tests.benchmarks.small_world import encoded_by, small_world

from .by_hand import assert_saved_as_it_is, cosines, everything, mrr, pairs_of, statistics, unit


# More pairs than dimensions, and fewer.
@pytest.mark.parametrize("dims", [(7, 5), (5, 7), (50, 41)])
@pytest.mark.parametrize("penalty", [0.01, 3.0])
def test_cca_solves_the_generalised_eigenproblem(dims: tuple[int, int], penalty: float) -> None:
    world = small_world(dims=dims, noise=1.0)
    scaled = dict(zip(("image", "text"), pairs_of(world), strict=True))
    whole = {name: everything(world, name) for name in scaled}
    for name in scaled:
        mean, std = statistics(world, name)
        scaled[name], whole[name] = (scaled[name] - mean) / std, (whole[name] - mean) / std
    x, y = scaled["image"], scaled["text"]
    within_x, within_y, across = (first.T @ second / len(x) for first, second in ((x, x), (y, y), (x, y)))
    zeros_x, zeros_y = np.zeros((dims[0], dims[0])), np.zeros((dims[1], dims[1]))
    left = np.block([[zeros_x, across], [across.T, zeros_y]])
    right = scipy.linalg.block_diag(within_x + penalty * np.eye(dims[0]), within_y + penalty * np.eye(dims[1]))
    values, vectors = scipy.linalg.eigh(left, right)
    count = min(*dims, len(x))
    correlations, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    assert 0 < correlations[-1] < correlations[0] < 1
    # The eigenvector is both halves, of which each has half the length.
    weights = np.sqrt(2 * correlations)
    images = unit(whole["image"] @ vectors[: dims[0]] * weights)
    texts = unit(whole["text"] @ vectors[dims[0] :] * weights)
    space = cca(world, "image", "text", [penalty])
    np.testing.assert_allclose(cosines(space, world), images @ texts.T, atol=1e-4)


def test_with_next_to_no_penalty_the_directions_are_those_of_scikit_learn() -> None:
    world = small_world(train=200, dims=(7, 5), noise=1.0)
    x, y = pairs_of(world)
    space = cca(world, "image", "text", [1e-9])
    other = CCA(n_components=3, max_iter=2000, tol=1e-10).fit(x, y)
    for name, values, theirs in zip(("image", "text"), (x, y), other.transform(x, y), strict=True):
        adapter = space.adapter(name).eval()
        weights = adapter.state_dict()["linear.weight"].double().numpy()
        ours = values * adapter.inverse_std.double().numpy() @ weights.T
        for component in range(3):
            # Statistics of rows and of items differ a little, and signs are free.
            assert abs(np.corrcoef(ours[:, component], theirs[:, component])[0, 1]) > 0.99


def test_the_penalty_is_the_best_on_the_validation_split() -> None:
    world = small_world(dims=(12, 9), noise=1.0)
    scores = {penalty: mrr(cca(world, "image", "text", [penalty]), world) for penalty in PENALTIES}
    assert len(set(scores.values())) > 1, "a choice that matters"
    assert mrr(cca(world, "image", "text"), world) == max(scores.values())


def test_the_result_is_an_ordinary_joint_space(tmp_path: Path) -> None:
    latents = encoded_by(small_world(dims=(7, 5)), "mine")
    assert_saved_as_it_is(cca(latents, "image", "text"), latents, tmp_path)
