"""The synthetic world is the same in whatever pieces it is made, and its factors are where they are said to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fusemix.benchmarks.synthetic import (
    BLOCK,
    PENALTIES,
    SyntheticItems,
    SyntheticSettings,
    SyntheticWorld,
    linear_r2,
    recovery,
    synthetic_latents,
)
from fusemix.errors import FusemixError
from fusemix.retrieval import ranks, recall_at

SMALL = SyntheticSettings(train=600, val=200, test=300, dims=(40, 30), shared=4, private=3, frequency=1.0)
# More than a block of items, so that boundaries are crossed.
LARGE = replace(SMALL, train=BLOCK, missing=0.3)


def tensors(items: SyntheticItems) -> list[Tensor]:
    kinds = (items.seen, items.private, items.latents, items.present)
    return [items.shared, *(kind[name] for kind in kinds for name in sorted(kind))]


def same(one: SyntheticItems, other: SyntheticItems) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def joined(parts: list[SyntheticItems]) -> list[Tensor]:
    return [torch.cat(list(of)) for of in zip(*map(tensors, parts), strict=True)]


def test_a_world_follows_from_its_seed() -> None:
    once, again, other = (synthetic_latents(replace(SMALL, seed=seed)) for seed in (0, 0, 1))
    for name in SMALL.modalities:
        assert torch.equal(once[name].values, again[name].values)
        assert not torch.equal(once[name].values, other[name].values)
    assert once.dataset == again.dataset != other.dataset
    first, second = (SyntheticWorld(replace(SMALL, seed=seed))._encoders["first"] for seed in (0, 1))
    assert not torch.equal(first.inward, second.inward)


@pytest.mark.parametrize("cuts", [[1], [BLOCK], [BLOCK - 1, BLOCK + 1], [7, 8, 4000, BLOCK + 400]])
def test_items_are_the_same_in_any_pieces(cuts: list[int]) -> None:
    world, end = SyntheticWorld(LARGE), LARGE.items
    pieces = [world.items(start, stop) for start, stop in zip([0, *cuts], [*cuts, end], strict=True)]
    for part, whole in zip(joined(pieces), tensors(world.items(0, end)), strict=True):
        assert torch.equal(part, whole)


def test_a_larger_training_split_holds_the_smaller_one() -> None:
    small, large = SyntheticWorld(SMALL), SyntheticWorld(replace(SMALL, train=900))
    for split in ("test", "val"):
        assert same(small.split(split), large.split(split))
    assert same(small.split("train"), large.split("train", 600))


def test_what_a_modality_is_leaves_the_others_as_they_are() -> None:
    wide = SyntheticWorld(replace(SMALL, dims=(50, 30))).items(0, 50)
    assert torch.equal(wide.latents["second"], SyntheticWorld(SMALL).items(0, 50).latents["second"])
    three = SyntheticWorld(replace(SMALL, dims=(40, 30, 20))).items(0, 50)
    two = SyntheticWorld(SMALL).items(0, 50)
    assert three.latents["third"].shape == (50, 20)
    for name in SMALL.modalities:
        assert torch.equal(three.latents[name], two.latents[name])


def test_latents_are_those_of_the_items_that_have_the_modality() -> None:
    latents, items = synthetic_latents(LARGE), SyntheticWorld(LARGE).items(0, LARGE.items)
    complete = LARGE.test + LARGE.val
    for name in LARGE.modalities:
        has = items.present[name].clone()
        has[:complete] = True
        modality = latents[name]
        assert torch.equal(modality.counts, has.long())
        assert modality.values.dtype == torch.float16
        assert torch.equal(modality.values[modality.rows], items.latents[name][has].half())
        assert modality.sources == latents.items[has.numpy()].tolist()
    contents = torch.cat([latents[name].content for name in LARGE.modalities])
    assert len(contents.unique()) == len(contents)
    assert sorted(latents.items) == latents.items.tolist()
    assert [len(latents.split(split)) for split in ("test", "val", "train")] == [300, 200, BLOCK]


def test_training_items_lack_modalities_with_the_given_probability() -> None:
    train = synthetic_latents(replace(LARGE, dims=(8, 8, 8), missing=0.5)).split("train")
    has = torch.stack([train[name].counts for name in ("first", "second", "third")]).bool()
    assert has.any(dim=0).all()
    # One of three, chosen at random, is always there; the others are with a probability of a half.
    assert has.float().mean(dim=1).tolist() == pytest.approx([2 / 3] * 3, abs=0.02)
    patterns = {tuple(pattern) for pattern in has.T.tolist()}
    assert len(patterns) == 7


def test_what_is_missing_at_a_small_probability_is_missing_at_a_larger_one() -> None:
    seldom, often = (SyntheticWorld(replace(LARGE, missing=p)).presence(0) for p in (0.2, 0.6))
    assert bool((seldom | ~often).all())
    assert seldom.sum() > often.sum()


def test_factors_are_as_they_are_told() -> None:
    items = SyntheticWorld(replace(SMALL, blur=0.5)).items(0, 2 * BLOCK)
    everything = torch.cat([items.shared, *items.private.values()], dim=1)
    torch.testing.assert_close(torch.cov(everything.T), torch.eye(10), atol=0.05, rtol=0)
    for name in SMALL.modalities:
        added = items.seen[name] - items.shared
        assert float(added.std()) == pytest.approx(0.5, rel=0.03)
        assert float(items.latents[name].std()) == pytest.approx(1, rel=0.05)
    assert not torch.equal(items.seen["first"], items.seen["second"])


def test_an_oracle_recovers_the_shared_factors_but_not_from_private_ones() -> None:
    world = SyntheticWorld(replace(SMALL, train=4000, test=1000))
    parts = [world.split(name) for name in ("train", "val", "test")]
    shared = [part.shared for part in parts]
    blur = world.settings.blur
    for name in SMALL.modalities:
        assert linear_r2([part.seen[name] for part in parts], shared) == pytest.approx(1 / (1 + blur**2), abs=0.01)
        assert abs(linear_r2([part.private[name] for part in parts], shared)) < 0.01
        # Who knows the encoder can undo it: its sines, turned back, and the phases of what it saw.
        encoder = world._encoders[name]
        of_test = parts[2]
        seen = torch.cat([of_test.seen[name] / (1 + blur**2) ** 0.5, of_test.private[name]], dim=1)
        sines = torch.sin(seen @ encoder.inward + encoder.phase)
        turned = of_test.latents[name] @ encoder.outward.T / 2**0.5
        assert float((turned - sines).std()) == pytest.approx(world.settings.noise / 2**0.5, rel=0.05)


def test_slow_sines_are_read_linearly_and_fast_ones_are_not() -> None:
    slow, fast = (
        recovery(SyntheticWorld(replace(SMALL, train=2000, blur=0.0, noise=0.0, frequency=f))) for f in (0.2, 3.0)
    )
    for name in SMALL.modalities:
        assert slow[name].shared > 0.99
        assert slow[name].private > 0.99
        assert fast[name].shared < 0.4


def test_embeddings_are_read_instead_of_latents_where_they_are_given() -> None:
    world = SyntheticWorld(SMALL)
    raw = recovery(world)
    rotation, _ = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(0)))
    read = recovery(world, lambda name, latents: latents[:, :1] if name == "second" else latents @ rotation * 3)
    assert read["first"].shared == pytest.approx(raw["first"].shared, abs=0.02)
    assert read["second"].shared < 0.2 < raw["second"].shared


def test_raw_latents_do_not_retrieve_and_what_encoders_see_does() -> None:
    test = SyntheticWorld(replace(SyntheticSettings(), train=1)).split("test")
    pairs = torch.arange(len(test.shared))[:, None].expand(-1, 2)
    raw, _ = ranks(test.latents["first"][:, :96], test.latents["second"], pairs)
    first, second = (torch.nn.functional.normalize(of, dim=1) for of in test.seen.values())
    ideal, _ = ranks(first, second, pairs)
    assert float(recall_at(1, raw).mean()) < 0.003
    assert float(recall_at(1, ideal).mean()) > 0.7


def test_linear_r2_is_that_of_ridge_regression() -> None:
    rng = np.random.default_rng(4)
    x = [rng.normal(size=(n, 5)) * [1, 2, 3, 4, 5] + 1 for n in (60, 40, 50)]
    weights = rng.normal(size=(5, 2))
    y = [part @ weights + 9 * rng.normal(size=(len(part), 2)) for part in x]
    mean, std = x[0].mean(0), x[0].std(0, ddof=1)
    scores = []
    for penalty in PENALTIES:
        # Ridge as least squares with rows that pull the weights to zero.
        rows = np.vstack([(x[0] - mean) / std, penalty**0.5 * np.eye(5)])
        solved = np.linalg.lstsq(rows, np.vstack([y[0] - y[0].mean(0), np.zeros((5, 2))]), rcond=None)[0]
        r2 = []
        for features, wanted in zip(x[1:], y[1:], strict=True):
            error = wanted - y[0].mean(0) - (features - mean) / std @ solved
            r2.append(np.mean(1 - (error**2).sum(0) / ((wanted - wanted.mean(0)) ** 2).sum(0)))
        scores.append(tuple(r2))
    expected = max(scores)[1]
    # What is best for the items to choose by is not for those to test.
    assert expected < max(test for _, test in scores) - 1e-6
    found = linear_r2([torch.from_numpy(part) for part in x], [torch.from_numpy(part) for part in y])
    assert found == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train": 0}, "synthetic.train is 0: it must be at least 1"),
        ({"missing": 1.0}, "synthetic.missing is 1.0"),
        ({"dims": (40,)}, "two or three"),
        ({"dims": (40, 6)}, "none below shared"),
        ({"frequency": 0.0}, "synthetic.frequency is 0.0: it must be above 0"),
    ],
)
def test_a_world_that_cannot_be_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(FusemixError, match=told):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_items_from_nowhere_are_refused() -> None:
    with pytest.raises(FusemixError, match="no items from 5 to 5"):
        SyntheticWorld(SMALL).items(5, 5)
