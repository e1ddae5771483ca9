from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fusemix.batch import LatentBatch
from fusemix.mixing import draw_lambda, draw_lambdas, mixup, partners_by_shift, partners_of_halves
from fusemix.randomness import generator


def make_batch(size: int, seed: int) -> LatentBatch:
    rng = torch.Generator().manual_seed(seed)
    present = {name: torch.rand(size, generator=rng) < 0.7 for name in ("image", "text")}
    dims = {"image": 3, "text": 5}
    return LatentBatch(
        {name: torch.randn(size, dim, generator=rng) * present[name][:, None] for name, dim in dims.items()},
        present,
        torch.arange(size)[:, None] + 100 * seed,
        {name: torch.randint(1000, (size, 1), generator=rng) for name in dims},
    )


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_every_modality_of_an_item_is_mixed_with_the_same_lambda(lam: float) -> None:
    batch, partner = make_batch(20, 1), make_batch(20, 2)
    mixed = mixup(batch, partner, lam)
    for name in ("image", "text"):
        for i in range(20):
            both = bool(batch.present[name][i] and partner.present[name][i])
            expected = lam * batch.values[name][i] + (1 - lam) * partner.values[name][i] if both else 0.0
            torch.testing.assert_close(mixed.values[name][i], torch.zeros_like(mixed.values[name][i]) + expected)
            assert bool(mixed.present[name][i]) == both
            assert mixed.content[name][i].tolist() == [int(batch.content[name][i]), int(partner.content[name][i])]
    assert torch.equal(mixed.items, batch.items)
    assert torch.equal(mixed.parents, torch.cat([batch.parents, partner.parents], dim=1))


def test_one_lambda_per_item() -> None:
    batch, partner, lam = make_batch(6, 1), make_batch(6, 2), torch.linspace(0, 1, 6)
    mixed = mixup(batch, partner, lam)
    for i in range(6):
        alone = mixup(batch, partner, float(lam[i]))
        torch.testing.assert_close(mixed.values["text"][i], alone.values["text"][i])


def test_latents_that_are_all_present_are_mixed_whole() -> None:
    size = 8
    everything = {name: torch.ones(size, dtype=torch.bool) for name in ("image", "text")}
    batch = LatentBatch(
        {"image": torch.ones(size, 2), "text": torch.ones(size, 3)},
        everything,
        torch.arange(size)[:, None],
        {name: torch.arange(size)[:, None] for name in everything},
    )
    partner = LatentBatch({k: -v for k, v in batch.values.items()}, everything, batch.parents, batch.content)
    mixed = mixup(batch, partner, 0.75)
    assert all(bool((value == 0.5).all()) for value in mixed.values.values())


def test_batches_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot mix 3 items"):
        mixup(make_batch(3, 1), make_batch(4, 1), 0.5)
    one = make_batch(3, 1)
    with pytest.raises(ValueError, match=r"of \['image', 'text'\] with 3 items of \['image'\]"):
        mixup(one, LatentBatch({"image": one.values["image"]}, one.present, one.parents, one.content), 0.5)


def pattern_cases() -> list[Tensor]:
    """Return patterns of an even number of items each: one pattern, lone items, none shared, and many by chance."""
    rng = torch.Generator().manual_seed(0)
    drawn = [torch.randint(kinds, (2 * half,), generator=rng) for kinds in (2, 3, 7) for half in (1, 2, 9, 40)]
    return [torch.zeros(10, dtype=torch.int64), torch.tensor([5, 0, 5, 5]), torch.arange(6), *drawn]


@pytest.mark.parametrize("patterns", pattern_cases())
def test_halves_are_paired_within_a_pattern_and_always_give_as_many_pairs(patterns: Tensor) -> None:
    half = len(patterns) // 2
    first, second = (chosen.tolist() for chosen in partners_of_halves(patterns, generator(0)))
    assert len(first) == len(second) == half
    unmixed = {i for i, j in zip(first, second, strict=True) if i == j}
    seen = [*first, *(j for j in second if j not in unmixed)]
    assert len(seen) == len(set(seen))
    places: dict[int, list[int]] = {}
    for place, pattern in enumerate(patterns.tolist()):
        places.setdefault(pattern, []).append(place)
    # Written down from the rule: a pattern's places in order, the first half with the second, the last one over.
    pairs = {(of[k], of[k + len(of) // 2]) for of in places.values() for k in range(len(of) // 2)}
    left_over = {of[-1] for of in places.values() if len(of) % 2}
    assert {(i, j) for i, j in zip(first, second, strict=True) if i != j} == pairs
    assert unmixed <= left_over
    assert 2 * len(unmixed) == len(left_over)


def test_halves_of_complete_items_are_the_first_and_the_second_half() -> None:
    first, second = partners_of_halves(torch.full((8,), 3), generator(0))
    assert first.tolist() == [0, 1, 2, 3]
    assert second.tolist() == [4, 5, 6, 7]


def test_each_item_left_over_enters_equally_often() -> None:
    patterns = torch.arange(4)
    entered = torch.zeros(4)
    for seed in range(400):
        entered[partners_of_halves(patterns, generator(seed))[0]] += 1
    assert entered.tolist() == pytest.approx([200] * 4, abs=40)


@pytest.mark.parametrize("patterns", [*pattern_cases(), torch.zeros(1, dtype=torch.int64), torch.arange(3)])
def test_a_shift_makes_one_circle_step_of_each_pattern_and_leaves_a_lone_item_unmixed(patterns: Tensor) -> None:
    first, second = partners_by_shift(patterns, generator(1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(len(patterns)))
    assert torch.equal(patterns[first], patterns[second])
    for pattern in patterns.unique():
        mine = patterns[first] == pattern
        places, partners = first[mine].tolist(), second[mine].tolist()
        length = places.index(partners[0])
        assert partners == places[length:] + places[:length]
        assert (length == 0) == (len(places) == 1)


def test_every_length_of_a_shift_is_drawn_equally_often() -> None:
    patterns = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 1, 0])
    lengths = {0: torch.zeros(5), 1: torch.zeros(5)}
    together = 0
    for seed in range(800):
        first, second = partners_by_shift(patterns, generator(seed))
        drawn = [first[patterns[first] == kind].tolist().index(second[patterns[first] == kind][0]) for kind in (0, 1)]
        together += drawn[0] == drawn[1]
        for kind, length in enumerate(drawn):
            lengths[kind][length] += 1
    for counts in lengths.values():
        assert counts.tolist() == pytest.approx([0, 200, 200, 200, 200], abs=45)
    assert together == pytest.approx(200, abs=45)


def test_lambda_follows_from_its_seed() -> None:
    assert draw_lambda(1.0, 5) == draw_lambda(1.0, 5)
    assert draw_lambda(1.0, 5) != draw_lambda(1.0, 6)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_lambda_is_beta_distributed(alpha: float) -> None:
    drawn = np.array([draw_lambda(alpha, seed) for seed in range(4000)])
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.03)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_the_lambdas_of_a_batch_are_beta_distributed_and_follow_from_their_seed(alpha: float) -> None:
    drawn = draw_lambdas(alpha, 7, 4000)
    assert drawn.dtype == torch.float32
    assert drawn.shape == (4000,)
    assert torch.equal(drawn, draw_lambdas(alpha, 7, 4000))
    assert not torch.equal(drawn, draw_lambdas(alpha, 8, 4000))
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(drawn.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@pytest.mark.parametrize("alpha", [1e-300, 1e308])
def test_an_extreme_alpha_still_gives_weights(alpha: float) -> None:
    assert 0 <= draw_lambda(alpha, 0) <= 1
    assert bool(((draw_lambdas(alpha, 0, 9) >= 0) & (draw_lambdas(alpha, 0, 9) <= 1)).all())
