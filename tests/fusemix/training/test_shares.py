from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fusemix.errors import FusemixError
from fusemix.latents.paired import PairedLatents
from fusemix.training.settings import FuseSettings
from fusemix.training.shares import largest_remainder, share_out


def dataset(name: str, items: int, captions: int = 1) -> PairedLatents:
    """Return items with one image and some captions each."""
    names = [f"{item:04d}" for item in range(items)]
    return PairedLatents.from_arrays(
        {"image": np.ones((items, 2)), "text": np.ones((items * captions, 2))},
        {"image": names, "text": names * captions},
        dict.fromkeys(names, "train"),
        dataset=name,
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_remainders_get_what_rounding_down_leaves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [int(w) for w in rng.integers(0, 1000, rng.integers(1, 7))]
    weights[0] += 1
    total = int(rng.integers(0, 5000))
    parts = largest_remainder(total, weights)
    # From the definition, in exact arithmetic.
    quotas = [Fraction(total * weight, sum(weights)) for weight in weights]
    exact = [int(quota) for quota in quotas]
    for part in sorted(range(len(quotas)), key=lambda part: exact[part] - quotas[part])[: total - sum(exact)]:
        exact[part] += 1
    assert sum(parts) == total
    remainders = [quota - int(quota) for quota in quotas]
    if len(set(remainders)) == len(remainders):
        assert parts == exact
    assert all(abs(part - quota) < 1 for part, quota in zip(parts, quotas, strict=True))
    assert all(part == 0 for part, weight in zip(parts, weights, strict=True) if weight == 0)


def test_datasets_weigh_their_pairs_unless_told_otherwise() -> None:
    train = [dataset("coco", 100, captions=5), dataset("sbu", 250), dataset("vg", 250)]
    shares = share_out(train, FuseSettings(batch_size=50, mixup="none"))
    assert [(s.dataset, s.items, s.pairs, s.taken) for s in shares] == [
        ("coco", 100, 500, 25),
        ("sbu", 250, 250, 13),
        ("vg", 250, 250, 12),
    ]
    # What is said stands in the place of the number of pairs.
    told = share_out(train, FuseSettings(batch_size=20, mixup="halves", dataset_weights={"coco": 500, "vg": 50}))
    assert [share.taken for share in told] == [25, 13, 2]
    told = share_out(train, FuseSettings(batch_size=20, dataset_weights={"coco": 0.2, "vg": 0.2, "sbu": 0.6}))
    assert [share.taken for share in told] == [8, 24, 8]


def test_shares_are_stated_with_items_pairs_and_epochs() -> None:
    train = [dataset("coco", 1000, captions=5), dataset("vg", 5000), dataset("sbu", 10)]
    shares = share_out(train, FuseSettings(batch_size=50, dataset_weights={"sbu": 0, "vg": 5000}))
    assert list(map(str, shares)) == [
        "coco: 1,000 items with 5,000 pairs to train on; 50 items of each step (50 %), an epoch is 20 steps",
        "vg: 5,000 pairs to train on; 50 items of each step (50 %), an epoch is 100 steps",
        "sbu: weight 0 in fuse.dataset_weights, left out",
    ]


def test_weights_that_sum_to_nothing_are_refused() -> None:
    with pytest.raises(FusemixError, match=r"nothing to train on: fuse\.dataset_weights sum to 0"):
        share_out([dataset("coco", 10)], FuseSettings(batch_size=2, dataset_weights={"coco": 0}))


def test_a_batch_larger_than_the_items_is_refused_with_the_size_that_fits() -> None:
    with pytest.raises(
        FusemixError,
        match=r"'coco': 10 items to train on, but a step takes 12 .*: set fuse.batch_size to at most 5 w",
    ):
        share_out([dataset("coco", 10)], FuseSettings(batch_size=6))
    assert share_out([dataset("coco", 10)], FuseSettings(batch_size=5))[0].taken == 10
    assert str(share_out([dataset("coco", 10)], FuseSettings(batch_size=5))[0]).endswith(", an epoch is 1 step")
    with pytest.raises(FusemixError, match=r"step takes 11 .* at most 5 with mixup of halves, 10 without"):
        share_out([dataset("coco", 10)], FuseSettings(batch_size=11, mixup="shift"))
    with pytest.raises(FusemixError, match="'coco': 10 pairs to train on, but a step takes 12"):
        share_out([dataset("coco", 10)], FuseSettings(batch_size=6, captions="all"))


def test_a_share_larger_than_its_dataset_is_refused_with_the_numbers() -> None:
    train = [dataset("coco", 300), dataset("sbu", 20)]
    settings = FuseSettings(batch_size=50, dataset_weights={"coco": 1, "sbu": 1})
    with pytest.raises(
        FusemixError,
        match=r"'sbu': 20 items to train on, but a step takes 50 \(50 % of 100; .* at most 20 with .*, 40 ",
    ):
        share_out(train, settings)
    for size in (20, 21):
        fits = FuseSettings(batch_size=size, dataset_weights={"coco": 1, "sbu": 1})
        if size == 20:
            assert share_out(train, fits)[1].taken == 20
        else:
            with pytest.raises(FusemixError, match="a step takes 21"):
                share_out(train, fits)


def test_a_share_that_rounds_to_no_item_is_refused() -> None:
    with pytest.raises(
        FusemixError, match=r"'sbu': its share of 0\.4 % of 100 items a step rounds to no item; raise"
    ):
        share_out([dataset("coco", 996), dataset("sbu", 4)], FuseSettings(batch_size=50))


@pytest.mark.parametrize(
    ("items", "advice"),
    [
        (1, "1 items to train on, but a step takes 4 .*: training takes more than one"),
        (3, "set fuse.batch_size to 3 and fuse.mixup to shift or none"),
    ],
)
def test_too_few_items_for_any_batch_are_refused(items: int, advice: str) -> None:
    with pytest.raises(FusemixError, match=advice):
        share_out([dataset("coco", items)], FuseSettings(batch_size=2))


def test_a_batch_of_one_pair_is_refused() -> None:
    with pytest.raises(FusemixError, match=r"fuse\.batch_size is 1: a pair alone has nothing"):
        share_out([dataset("coco", 10)], FuseSettings(batch_size=1))


def test_datasets_of_one_name_and_weights_of_unknown_ones_are_refused() -> None:
    with pytest.raises(FusemixError, match="two datasets are named 'coco'"):
        share_out([dataset("coco", 10), dataset("vg", 10), dataset("coco", 10)], FuseSettings(batch_size=2))
    with pytest.raises(
        FusemixError, match=r"no dataset with items to train on is named 'cocoa': did you mean 'coco'"
    ):
        share_out([dataset("coco", 10)], FuseSettings(batch_size=2, dataset_weights={"cocoa": 1}))


def test_nothing_to_train_on_is_refused() -> None:
    empty = PairedLatents.from_arrays({"image": np.ones((0, 2))}, {"image": []}, {}, dataset="coco")
    with pytest.raises(FusemixError, match="nothing to train on: no item of 'coco'"):
        share_out([empty], FuseSettings(batch_size=2))
