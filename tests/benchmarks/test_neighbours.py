"""Nearest neighbours against a sorted matrix of cosines, and what may not matter: tile, order, duplicates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fusemix.benchmarks.neighbours import nearest_neighbours
from fusemix.errors import FusemixError

from .labelled_world import Floats


def shares(queries: Tensor, gallery: Tensor, k: int, elements: int = 1 << 20) -> Floats:
    """The neighbours as a (Q, N) matrix of shares."""
    found = torch.zeros(len(queries), len(gallery), dtype=torch.float64)
    for some in nearest_neighbours(queries, gallery, k, elements):
        found[some.queries, some.gallery] += some.share
    return found.numpy()


def by_sorting(queries: Tensor, gallery: Tensor, k: int) -> Floats:
    """The same, each place filled by turns with all that are as near as the one a sort puts there."""
    a, b = (x.double().numpy() for x in (queries, gallery))
    norms = np.linalg.norm(a, axis=1, keepdims=True) * np.linalg.norm(b, axis=1)
    cosines = (a @ b.T / np.where(norms == 0, 1, norms)).round(11)
    found = np.zeros_like(cosines)
    for row, cosine in enumerate(cosines):
        for value in np.sort(cosine)[::-1][:k]:
            alike = cosine == value
            found[row, alike] += 1 / alike.sum()
    return np.asarray(found)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("queries", "gallery", "k"), [(13, 29, 5), (1, 7, 7), (40, 11, 1)])
def test_they_are_the_first_of_the_sorted_cosines(rng: torch.Generator, queries: int, gallery: int, k: int) -> None:
    a, b = torch.randn(queries, 6, generator=rng), torch.randn(gallery, 6, generator=rng)
    found = shares(a, b, k)
    np.testing.assert_allclose(found, by_sorting(a, b, k))
    assert set(found.ravel()) <= {0.0, 1.0}


def test_those_that_tie_for_the_last_places_share_them(rng: torch.Generator) -> None:
    # In float64, whose factors leave differences of a last bit.
    b = torch.randn(9, 4, generator=rng).double()
    b = torch.cat([b, b[:4] * 0.3, b[:4] * 0.07, b[:4] * 11, torch.zeros(3, 4)])
    a = torch.cat([torch.randn(20, 4, generator=rng), torch.zeros(1, 4)])
    for k in (1, 2, 5, 12):
        found = shares(a, b, k)
        np.testing.assert_allclose(found, by_sorting(a, b, k), atol=1e-12)
        np.testing.assert_allclose(found.sum(axis=1), k)
    np.testing.assert_allclose(shares(a, b, 4)[-1], 4 / len(b))


@pytest.mark.parametrize("elements", [1, 37, 100, 1 << 20])
def test_the_tile_changes_nothing(rng: torch.Generator, elements: int) -> None:
    a, b = torch.randn(31, 33, generator=rng), torch.randn(17, 33, generator=rng)
    b = torch.cat([b, b[:5]])
    np.testing.assert_array_equal(shares(a, b, 6, elements), shares(a, b, 6))


def test_the_order_of_the_gallery_changes_nothing(rng: torch.Generator) -> None:
    a, b = torch.randn(31, 5, generator=rng), torch.randn(17, 5, generator=rng)
    b = torch.cat([b, b, b[:5]])
    order = torch.randperm(len(b), generator=rng)
    np.testing.assert_array_equal(shares(a, b[order], 6), shares(a, b, 6)[:, order.numpy()])


def test_they_know_how_far_they_are_behind_the_nearest(rng: torch.Generator) -> None:
    a, b = torch.randn(8, 5, generator=rng), torch.randn(17, 5, generator=rng)
    cosines = torch.nn.functional.normalize(a.double()) @ torch.nn.functional.normalize(b.double()).T
    for some in nearest_neighbours(a, b, 4, 40):
        expected = cosines.amax(dim=1)[some.queries] - cosines[some.queries, some.gallery]
        np.testing.assert_allclose(some.behind.numpy(), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize("k", [0, 6])
def test_more_neighbours_than_rows_are_refused(k: int) -> None:
    with pytest.raises(FusemixError, match=f"{k} nearest neighbours of 5 rows: k must be 1 to 5"):
        list(nearest_neighbours(torch.ones(2, 3), torch.ones(5, 3), k))
