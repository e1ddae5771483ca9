from __future__ import annotations

import numpy as np
import pytest
import torch

from fusemix.batch import LatentBatch
from fusemix.mixing import draw_lambda, halves, mixup


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


def test_halves_part_the_items_and_drop_an_odd_last_one() -> None:
    batch = make_batch(7, 1)
    first, second = halves(batch)
    assert first.items.tolist() == [100, 101, 102]
    assert second.items.tolist() == [103, 104, 105]
    for name in ("image", "text"):
        for part, chosen in ((first, slice(0, 3)), (second, slice(3, 6))):
            assert torch.equal(part.values[name], batch.values[name][chosen])
            assert torch.equal(part.present[name], batch.present[name][chosen])
            assert torch.equal(part.content[name], batch.content[name][chosen])


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
