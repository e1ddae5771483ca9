"""Rankings against a slow oracle that sorts the whole float64 score matrix."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fusemix.errors import FusemixError
from fusemix.retrieval import Ranking, rankings, ranks
from fusemix.retrieval.comparison import TILE

from .embeddings import Read, clustered, diagonal, near_copies, normal, random_pairs, set_group, set_tile, unit

Answers = list[list[int]]
Places = list[tuple[int, int, int, int, int, int]]
"""(query, answer, better, tied, right_better, right_tied) of each positive."""


def places(ranking: Ranking) -> Places:
    every = ranking.every
    columns = (every.queries, every.answers, every.better, every.tied, every.right_better, every.right_tied)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def listed(answers: Tensor) -> Answers:
    """The answers of each row, without those that stand for none; these come last."""
    found = [[answer for answer in row if answer >= 0] for row in answers.tolist()]
    assert all(row[: len(kept)] == kept for row, kept in zip(answers.tolist(), found, strict=True))
    return found


def sorted_answers(scores: list[float], answers: list[int], tie: float) -> list[int]:
    """Answers from the highest score to the lowest, by number where a chain of ties joins them."""
    groups: list[list[int]] = []
    before = float("inf")
    for answer in sorted(answers, key=lambda answer: -scores[answer]):
        if before - scores[answer] > tie:
            groups.append([])
        groups[-1].append(answer)
        before = scores[answer]
    return [answer for group in groups for answer in sorted(group)]


def oracle(queries: Tensor, gallery: Tensor, positives: Tensor, k: int) -> tuple[Places, Answers, Answers]:
    """Places of the positives, the k best answers, and the k best wrong ones, of one direction."""
    q, g = queries.double(), gallery.double()
    tie = float(1e-12 * q.norm(dim=1).max() * g.norm(dim=1).max())
    own: dict[int, list[int]] = {}
    for query, answer in sorted(positives.tolist()):
        own.setdefault(query, []).append(answer)
    found: Places = []
    top, wrong = [], []
    for query, vector in enumerate(q):
        scores = (g * vector).sum(dim=1).tolist()
        right = own.get(query, [])
        everyone = list(range(len(g)))
        for positive in right:
            lead = [scores[answer] - scores[positive] for answer in everyone if answer != positive]
            of_right = [scores[answer] - scores[positive] for answer in right if answer != positive]
            counts = (above(lead, tie), level(lead, tie), above(of_right, tie), level(of_right, tie))
            found.append((query, positive, *counts))
        top.append(sorted_answers(scores, everyone, tie)[:k])
        wrong.append(sorted_answers(scores, [a for a in everyone if a not in right], tie)[:k])
    return found, top, wrong


def above(differences: list[float], tie: float) -> int:
    return sum(difference > tie for difference in differences)


def level(differences: list[float], tie: float) -> int:
    return sum(abs(difference) <= tie for difference in differences)


def assert_exact(queries: Tensor, gallery: Tensor, positives: Tensor, k: int) -> None:
    arguments = ((queries, gallery, positives), (gallery, queries, positives.flip(1)))
    results, best = rankings(queries, gallery, positives, k), ranks(queries, gallery, positives)
    for ranking, (q, g, pairs), ranked in zip(results, arguments, best, strict=True):
        assert (places(ranking), listed(ranking.top.answers), listed(ranking.wrong.answers)) == oracle(q, g, pairs, k)
        for name in ("queries", "better", "tied"):
            assert torch.equal(getattr(ranking.best, name), getattr(ranked, name))
        for best_k in (ranking.top, ranking.wrong):
            assert best_k.answers.shape == best_k.scores.shape == (len(q), min(k, len(g)))
            exact = (q.double()[:, None] * g.double()[best_k.answers]).sum(dim=2)
            expected = exact.masked_fill(best_k.answers < 0, -torch.inf)
            torch.testing.assert_close(best_k.scores, expected, rtol=1e-13, atol=1e-13)


def assert_equal(first: tuple[Ranking, Ranking], second: tuple[Ranking, Ranking]) -> None:
    for one, other in zip(first, second, strict=True):
        for part in ("best", "every", "top", "wrong"):
            for name, tensor in vars(getattr(one, part)).items():
                assert torch.equal(tensor, getattr(getattr(other, part), name)), (part, name)


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("tile", [7, TILE])
@pytest.mark.parametrize(
    ("queries", "gallery", "dim", "k"), [(1, 1, 1, 1), (9, 1, 3, 4), (7, 19, 2, 3), (33, 60, 40, 10)]
)
def test_random_embeddings(
    queries: int, gallery: int, dim: int, k: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile(monkeypatch, tile)
    for seed, chance in enumerate([1 / gallery, 0.2, 1.0]):
        pairs = random_pairs(seed, queries, gallery, chance)
        assert_exact(unit(seed, queries, dim), unit(seed + 100, gallery, dim), pairs, k)


def test_more_rows_than_a_tile_of_the_real_size() -> None:
    queries, gallery = unit(1, 40, 32), unit(2, 1100, 32)
    assert_exact(queries, gallery, random_pairs(0, 40, 1100, 0.005), 5)


def test_the_shortlist_is_enough_for_ordinary_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile(monkeypatch, 32)
    monkeypatch.delattr(sys.modules["fusemix.retrieval.top"], "_compare_with_all")
    rankings(unit(0, 100, 24), unit(1, 300, 24), random_pairs(2, 100, 300, 0.01), 5)


@pytest.mark.parametrize("tile", [8, TILE])
@pytest.mark.parametrize("k", [1, 4, 80])
def test_copies_and_near_ties(tile: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile(monkeypatch, tile)
    assert_exact(*clustered(), k)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_constant_embeddings_tie_with_everything(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile(monkeypatch, 16)
    pairs = torch.tensor([[0, 3], [0, 49], [1, 1]])
    forward, _ = rankings(torch.full((3, 64), value), torch.full((50, 64), value), pairs, 4)
    assert listed(forward.wrong.answers) == [[0, 1, 2, 4], [0, 2, 3, 4], [0, 1, 2, 3]]
    assert listed(forward.top.answers) == [[0, 1, 2, 3]] * 3
    assert places(forward) == [(0, 3, 0, 49, 0, 1), (0, 49, 0, 49, 0, 1), (1, 1, 0, 49, 0, 0)]


def test_an_answer_that_only_float64_can_tell_is_on_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile(monkeypatch, 6)
    queries = unit(0, 12, 48)
    # More answers than a shortlist holds, closer to each other than float32 scores can tell.
    gallery = unit(1, 1, 48).repeat(48, 1)
    gallery.diagonal().copy_(torch.nextafter(gallery.diagonal(), torch.tensor(torch.inf)))
    assert_exact(queries, gallery, random_pairs(2, 12, 48, 0.05), 3)


def test_scores_that_tie_are_in_the_order_of_the_answers() -> None:
    # They are 0, 5e-13, 3e-12 and 1.2e-12 above 1: a chain of ties joins 0, 1 and 3, but not without 1.
    gallery = torch.tensor([[1.0, 0.0], [1.0, 5e-6], [1.0, 3e-5], [1.0, 1.2e-5]])
    forward, _ = rankings(torch.tensor([[1.0, 1e-7]]), gallery, torch.tensor([[0, 1]]), 4)
    assert listed(forward.top.answers) == [[2, 0, 1, 3]]
    assert listed(forward.wrong.answers) == [[2, 3, 0]]


def test_every_positive_of_a_query_with_more_of_them_than_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile(monkeypatch, 4)
    pairs = torch.cat([torch.stack([torch.full((30,), 2), torch.arange(30)], dim=1), diagonal(2)])
    assert_exact(unit(0, 6, 5), unit(1, 33, 5), pairs, 3)


def test_no_positive_at_all() -> None:
    assert_exact(unit(0, 5, 3), unit(1, 4, 3), torch.empty(0, 2, dtype=torch.int64), 2)


def test_scores_are_those_of_the_embeddings_as_given() -> None:
    queries, gallery = 1e9 * normal(0, 4, 8), 1e-9 * normal(1, 30, 8)
    forward, backward = rankings(queries, gallery, diagonal(4), 3)
    expected = (queries.double() @ gallery.double().t()).topk(3)
    torch.testing.assert_close(forward.top.scores, expected.values, rtol=1e-12, atol=0)
    assert torch.equal(forward.top.answers, expected.indices)
    expected = (gallery.double() @ queries.double().t()).topk(3)
    torch.testing.assert_close(backward.top.scores, expected.values, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("queries", "gallery"), [(60, 190), (190, 60)])
@pytest.mark.parametrize("dense", [False, True])
def test_groups_of_scores_that_do_not_matter_are_left_out(
    dense: bool, queries: int, gallery: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile(monkeypatch, 40)
    set_group(monkeypatch, 4)
    few = unit(0, queries, 2), unit(1, gallery, 2), random_pairs(2, queries, gallery, 0.02)
    assert_exact(*(few if dense else near_copies(queries, gallery)), 3)


@pytest.mark.usefixtures("_threads")
def test_rankings_depend_on_neither_tile_nor_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = unit(0, 120, 24), unit(1, 300, 24), random_pairs(2, 120, 300, 0.01)
    torch.set_num_threads(1)
    expected = rankings(*arguments, 5)
    monkeypatch.setattr(sys.modules["fusemix.retrieval.comparison"], "TILES_OF_A_BLOCK", 2)
    for tile, threads in ((16, 1), (16, 3), (50, 2)):
        set_tile(monkeypatch, tile)
        torch.set_num_threads(threads)
        assert_equal(rankings(*arguments, 5), expected)


def test_rankings_depend_on_no_order() -> None:
    queries, gallery, pairs = unit(0, 30, 12), unit(1, 90, 12), random_pairs(2, 30, 90, 0.03)
    forward, _ = rankings(queries, gallery, pairs, 6)
    of_query, of_row = torch.randperm(30), torch.randperm(90)
    moved = torch.stack([of_query.argsort()[pairs[:, 0]], of_row.argsort()[pairs[:, 1]]], dim=1)
    again, _ = rankings(queries[of_query], gallery[of_row], moved, 6)
    assert torch.equal(of_row[again.top.answers], forward.top.answers[of_query])
    assert torch.equal(of_row[again.wrong.answers], forward.wrong.answers[of_query])
    assert torch.equal(again.top.scores, forward.top.scores[of_query])
    back = sorted((int(of_query[q]), int(of_row[a]), *counts) for q, a, *counts in places(again))
    assert back == [(q, a, *counts) for q, a, *counts in places(forward)]


@pytest.mark.parametrize(
    ("hard", "read", "threads"),
    [(False, "gallery", 1), (True, "queries", 1), (False, "both", 2), (True, "both", 2)],
)
@pytest.mark.usefixtures("_threads")
def test_a_side_that_is_read_is_ranked_as_one_in_memory(
    hard: bool, read: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile(monkeypatch, 8)
    monkeypatch.setattr(sys.modules["fusemix.retrieval.comparison"], "TILES_OF_A_BLOCK", 2)
    torch.set_num_threads(threads)
    queries, gallery, pairs = clustered() if hard else (unit(0, 45, 9), unit(1, 70, 9), random_pairs(3, 45, 70, 0.05))
    first = queries if read == "gallery" else Read(queries)
    second = gallery if read == "queries" else Read(gallery)
    assert_equal(rankings(first, second, pairs, 3), rankings(queries, gallery, pairs, 3))
    for ours, theirs in zip(ranks(first, second, pairs), ranks(queries, gallery, pairs), strict=True):
        assert all(torch.equal(tensor, getattr(theirs, name)) for name, tensor in vars(ours).items())
    for source in (first, second):
        if isinstance(source, Read):
            assert max(stop - start for start, stop in source.asked) == 16
    assert torch.get_num_threads() == threads


def test_a_gallery_that_is_read_is_scaled_as_one_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile(monkeypatch, 1)
    queries, gallery, pairs = normal(0, 5, 8).half(), 1e30 * normal(1, 70, 8), random_pairs(2, 5, 70, 0.1)
    # The last block alone needs no scaling.
    gallery[64:] *= 1e-30
    assert_equal(rankings(queries, Read(gallery), pairs, 3), rankings(queries, gallery, pairs, 3))
    assert_exact(queries.float(), gallery, pairs, 3)


def test_a_row_of_a_source_that_is_not_finite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile(monkeypatch, 1)
    gallery = unit(0, 70, 3)
    gallery[55, 1] = torch.nan
    with pytest.raises(FusemixError, match="gallery embedding 55 is not finite"):
        ranks(unit(1, 3, 3), Read(gallery), diagonal(3))


class Short(Read):
    """A source that gives a row less than it was asked for."""

    def rows(self, start: int, stop: int) -> Tensor:
        return super().rows(start, stop - 1)


def test_a_source_that_gives_other_rows_than_asked_for_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"gallery embeddings 0 to 7 must be \(7, d\), not \(6, 3\)"):
        ranks(unit(1, 3, 3), Short(unit(0, 7, 3)), diagonal(3))


def test_fewer_than_one_answer_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="asked for the best 0"):
        rankings(unit(0, 2, 3), unit(1, 2, 3), diagonal(2), 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("hard", [False, True])
def test_a_gpu_ranks_as_the_cpu_does(hard: bool) -> None:
    queries, gallery, pairs = (
        clustered() if hard else (unit(0, 900, 48), unit(1, 1700, 48), random_pairs(2, 900, 1700, 0.002))
    )
    on_gpu = rankings(queries.cuda(), gallery.cuda(), pairs.cuda(), 5)
    for ours, theirs in zip(on_gpu, rankings(queries, gallery, pairs, 5), strict=True):
        assert places(ours) == places(theirs)
        assert (listed(ours.top.answers), listed(ours.wrong.answers)) == (
            listed(theirs.top.answers),
            listed(theirs.wrong.answers),
        )
