"""Ranks against a slow oracle that sees the whole float64 score matrix."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from fusemix.errors import FusemixError
from fusemix.retrieval import Ranks, ranks
from fusemix.retrieval.comparison import TILE

from .embeddings import clustered, diagonal, near_copies, normal, random_pairs, set_group, set_tile, unit

Placed = list[tuple[int, int, int]]
"""(query, better, tied) of each query that has a positive."""


def placed(result: Ranks) -> Placed:
    return list(zip(result.queries.tolist(), result.better.tolist(), result.tied.tolist(), strict=True))


def count_all(scores: npt.NDArray[np.float64], own: npt.NDArray[np.bool_], tie: float) -> Placed:
    found = []
    for query in np.flatnonzero(own.any(axis=1)):
        lead = scores[query][~own[query]] - scores[query][own[query]].max()
        found.append((int(query), int((lead > tie).sum()), int((np.abs(lead) <= tie).sum())))
    return found


def oracle(queries: Tensor, gallery: Tensor, positives: Tensor) -> tuple[Placed, Placed]:
    q, g = queries.float().double().numpy(), gallery.float().double().numpy()
    own = np.zeros((len(q), len(g)), bool)
    own[positives[:, 0], positives[:, 1]] = True
    tie = 1e-12 * np.linalg.norm(q, axis=1).max() * np.linalg.norm(g, axis=1).max()
    # Not the BLAS product: its last bits depend on the place in the matrix.
    scores = np.stack([(g * row).sum(axis=1) for row in q])
    return count_all(scores, own, tie), count_all(scores.T, own.T, tie)


def assert_exact(queries: Tensor, gallery: Tensor, positives: Tensor) -> None:
    forward, backward = ranks(queries, gallery, positives)
    assert (placed(forward), placed(backward)) == oracle(queries, gallery, positives)


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("tile", [3, 16, TILE])
@pytest.mark.parametrize(
    ("queries", "gallery", "dim"),
    [(1, 1, 1), (1, 9, 3), (9, 1, 3), (7, 7, 1), (8, 13, 2), (16, 32, 17), (33, 20, 64), (50, 41, 512)],
)
def test_random_embeddings(queries: int, gallery: int, dim: int, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile(monkeypatch, tile)
    for seed, chance in enumerate([1 / gallery, 0.1, 0.5, 1.0]):
        pairs = random_pairs(seed, queries, gallery, chance)
        assert_exact(unit(seed, queries, dim), unit(seed + 100, gallery, dim), pairs)


@pytest.mark.parametrize(("queries", "gallery"), [(1000, 800), (1279, 1281), (1300, 700)])
def test_more_rows_than_a_tile_of_the_real_size(queries: int, gallery: int) -> None:
    pairs = random_pairs(0, queries, gallery, 3 / gallery)
    assert_exact(unit(1, queries, 8), unit(2, gallery, 8), pairs)


def test_other_positives_are_no_competitors() -> None:
    queries, gallery = torch.tensor([[1.0]]), torch.tensor([[4.0], [3.0], [2.0], [5.0]])
    forward, backward = ranks(queries, gallery, torch.tensor([[0, 2], [0, 0], [0, 1]]))
    assert placed(forward) == [(0, 1, 0)]
    assert placed(backward) == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]


def test_queries_without_a_positive_are_left_out_and_still_compete() -> None:
    queries, gallery = torch.tensor([[3.0], [1.0], [2.0]]), torch.tensor([[1.0], [2.0]])
    forward, backward = ranks(queries, gallery, torch.tensor([[2, 0]]))
    assert placed(forward) == [(2, 1, 0)]
    assert placed(backward) == [(0, 1, 0)]


def test_no_positive_at_all() -> None:
    none = torch.empty(0, 2, dtype=torch.int64)
    assert [placed(side) for side in ranks(unit(0, 5, 3), unit(1, 4, 3), none)] == [[], []]


@pytest.mark.parametrize("tile", [5, 16, TILE])
def test_exact_duplicates_tie_exactly(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile(monkeypatch, tile)
    gallery = unit(0, 30, 384)
    gallery[[3, 11, 29]] = gallery[17].clone()
    # Near their own row, so that nothing else is better.
    queries = gallery[[17, 4]] + 1e-3 * normal(1, 2, 384)
    forward, backward = ranks(queries, gallery, torch.tensor([[0, 17], [1, 4]]))
    assert placed(forward) == [(0, 0, 3), (1, 0, 0)]
    assert placed(backward) == [(4, 0, 0), (17, 0, 0)]
    assert_exact(queries, gallery, random_pairs(2, 2, 30, 0.1))


@pytest.mark.parametrize("dim", [128, 384, 768])
def test_duplicates_tie_where_every_rounding_error_of_a_score_has_one_sign(dim: int) -> None:
    codes = torch.nn.functional.normalize(normal(0, 30, dim).sign(), dim=1)
    gallery = torch.cat([codes, codes, -codes])
    assert_exact(codes, gallery, diagonal(30))
    assert placed(ranks(codes, gallery, diagonal(30))[0]) == [(query, 0, 1) for query in range(30)]


@pytest.mark.parametrize("value", [0.0, 0.7, 1.0])
def test_constant_embeddings_tie_with_everything(value: float) -> None:
    forward, backward = ranks(torch.full((6, 256), value), torch.full((9, 256), value), diagonal(6))
    assert placed(forward) == [(query, 0, 8) for query in range(6)]
    assert placed(backward) == [(row, 0, 5) for row in range(6)]


def test_zero_embeddings_among_others() -> None:
    queries, gallery = unit(0, 20, 6), unit(1, 25, 6)
    queries[::4], gallery[::3] = 0, 0
    assert_exact(queries, gallery, random_pairs(2, 20, 25, 0.1))


@pytest.mark.parametrize("scale", [1e-6, 1e4, 1e12])
def test_norms_far_from_one(scale: float) -> None:
    assert_exact(scale * normal(0, 30, 64), scale * normal(1, 40, 64), random_pairs(2, 30, 40, 0.1))


def test_norms_that_differ_by_orders_of_magnitude() -> None:
    queries = normal(0, 30, 32) * 10 ** normal(1, 30, 1)
    gallery = normal(2, 40, 32) * 10 ** normal(3, 40, 1)
    assert_exact(queries, gallery, random_pairs(4, 30, 40, 0.1))


@pytest.mark.parametrize("tile", [6, TILE])
def test_float64_decides_what_float32_cannot_tell_apart(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile(monkeypatch, tile)
    queries = unit(0, 12, 48)
    gallery = unit(1, 1, 48).repeat(48, 1)
    gallery.diagonal().copy_(torch.nextafter(gallery.diagonal(), torch.tensor(torch.inf)))
    in_float32 = (queries @ gallery.T).unique(dim=1).shape[1]
    assert in_float32 < 48, "rows that float32 tells apart test nothing"
    pairs = random_pairs(2, 12, 48, 0.05)
    assert_exact(queries, gallery, pairs)
    assert not any(tied for _, _, tied in placed(ranks(queries, gallery, pairs)[0]))


@pytest.mark.parametrize(("last", "expected"), [(2e-5, (1, 0)), (5e-6, (0, 1)), (-5e-6, (0, 1)), (-2e-5, (0, 0))])
def test_a_tie_is_a_difference_of_at_most_1e_minus_12_of_the_largest_score(
    last: float, expected: tuple[int, int]
) -> None:
    # The scores differ by 1e-7 * last.
    queries, gallery = torch.tensor([[1.0, 1e-7]]), torch.tensor([[1.0, 0.0], [1.0, last]])
    forward, _ = ranks(queries, gallery, torch.tensor([[0, 0]]))
    assert placed(forward) == [(0, *expected)]


@pytest.mark.parametrize("tile", [3, 32, TILE])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.usefixtures("_threads")
def test_ranks_depend_on_neither_tile_nor_threads(tile: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile(monkeypatch, tile)
    torch.set_num_threads(threads)
    assert_exact(*clustered())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("groups", [0, 5, 8192])
@pytest.mark.parametrize("left_open", [0, 30, 1 << 20])
@pytest.mark.parametrize(("queries", "gallery"), [(50, 180), (180, 50), (70, 70)])
def test_when_scores_are_compared_changes_no_rank(
    queries: int, gallery: int, left_open: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile(monkeypatch, 40)
    set_group(monkeypatch, 8)
    monkeypatch.setattr(sys.modules["fusemix.retrieval.comparison"], "TILES_OF_A_BLOCK", 2)
    monkeypatch.setattr(sys.modules["fusemix.retrieval.counting"], "GROUPS_AT_ONCE", groups)
    monkeypatch.setattr(sys.modules["fusemix.retrieval.counting"], "SCORES_LEFT_OPEN", left_open)
    assert_exact(*near_copies(queries, gallery))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.usefixtures("_threads")
def test_the_mode_of_the_caller_does_not_matter(threads: int) -> None:
    torch.set_num_threads(threads)
    queries, gallery, pairs = clustered()
    plain = ranks(queries, gallery, pairs)
    with torch.inference_mode():
        without_gradients = ranks(queries.clone(), gallery.clone(), pairs)
    with_gradients = ranks(queries.clone().requires_grad_(), gallery.clone().requires_grad_(), pairs)
    for other in (without_gradients, with_gradients):
        assert [placed(side) for side in other] == [placed(side) for side in plain]


@pytest.mark.parametrize("tile", [8, TILE])
def test_ranks_depend_on_no_order(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile(monkeypatch, tile)
    queries, gallery, pairs = clustered()
    forward, backward = ranks(queries, gallery, pairs)
    for seed in range(5):
        shuffled = torch.Generator().manual_seed(seed)
        of_query, of_row, of_pair = (
            torch.randperm(n, generator=shuffled) for n in (len(queries), len(gallery), len(pairs))
        )
        moved = torch.stack([of_query.argsort()[pairs[:, 0]], of_row.argsort()[pairs[:, 1]]], dim=1)[of_pair]
        again_forward, again_backward = ranks(queries[of_query], gallery[of_row], moved)
        assert sorted((int(of_query[q]), b, t) for q, b, t in placed(again_forward)) == placed(forward)
        assert sorted((int(of_row[r]), b, t) for r, b, t in placed(again_backward)) == placed(backward)


def test_both_directions_swap_with_the_arguments() -> None:
    queries, gallery, pairs = clustered()
    forward, backward = ranks(queries, gallery, pairs)
    swapped = ranks(gallery, queries, pairs.flip(1))
    assert [placed(side) for side in swapped] == [placed(backward), placed(forward)]


def test_arguments_are_left_alone() -> None:
    queries, gallery, pairs = clustered()
    before = [tensor.clone() for tensor in (queries, gallery, pairs)]
    ranks(queries, gallery, pairs)
    assert all(torch.equal(old, new) for old, new in zip(before, (queries, gallery, pairs), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_count_as_their_float32_values(dtype: torch.dtype) -> None:
    assert_exact(unit(0, 20, 24).to(dtype), unit(1, 30, 24).to(dtype), random_pairs(2, 20, 30, 0.1))


def test_a_lower_matmul_precision_changes_no_rank() -> None:
    queries = unit(0, 300, 256)
    gallery = torch.cat([queries, queries])
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert_exact(queries, gallery, diagonal(300))
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("side", ["query", "gallery"])
def test_an_embedding_that_is_not_finite_is_named(side: str, bad: float) -> None:
    broken, fine = unit(0, 5, 3), unit(1, 5, 3)
    broken[3, 1] = bad
    arguments = (broken, fine) if side == "query" else (fine, broken)
    with pytest.raises(FusemixError, match=f"{side} embedding 3 is not finite"):
        ranks(*arguments, diagonal(5))


@pytest.mark.parametrize("pair", [[-1, 0], [0, -1], [4, 0], [0, 6]])
def test_a_pair_outside_is_an_error(pair: list[int]) -> None:
    with pytest.raises(ValueError, match="outside the 4 queries and 6 gallery rows"):
        ranks(unit(0, 4, 3), unit(1, 6, 3), torch.tensor([[0, 0], pair]))


def test_a_pair_given_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="appears twice"):
        ranks(unit(0, 4, 3), unit(1, 6, 3), torch.tensor([[0, 0], [3, 5], [0, 0]]))


@pytest.mark.parametrize(
    ("queries", "gallery", "positives"),
    [((4, 3), (4, 2), (1, 2)), ((3,), (4, 3), (1, 2)), ((4, 3), (2, 4, 3), (1, 2)), ((4, 3), (4, 3), (2,))],
)
def test_wrong_shapes_are_errors(
    queries: tuple[int, ...], gallery: tuple[int, ...], positives: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="must be"):
        ranks(torch.zeros(queries), torch.zeros(gallery), torch.zeros(positives, dtype=torch.int64))
