"""Which rows of a split belong together."""

from __future__ import annotations

import numpy as np
import pytest

from fusemix.errors import FusemixError
from fusemix.latents.paired import PairedLatents
from fusemix.retrieval import pool_rows

Rows = list[tuple[str, str]]
"""(item, content) of each row, in the order of the file."""


def paired(pictures: Rows, captions: Rows) -> PairedLatents:
    rows = {"image": pictures, "text": captions}
    return PairedLatents.from_arrays(
        {name: np.arange(len(of), dtype=np.float32)[:, None] for name, of in rows.items()},
        {name: [item for item, _ in of] for name, of in rows.items()},
        {item: "test" for of in rows.values() for item, _ in of},
        sources={name: [content for _, content in of] for name, of in rows.items()},
    )


def pooled(latents: PairedLatents) -> tuple[set[tuple[int, int]], list[str], list[str]]:
    """The positives as pairs of rows of the file, and the item of each pooled row."""
    pool = pool_rows(latents, "image", "text")
    pairs = {(int(pool.rows_a[i]), int(pool.rows_b[j])) for i, j in pool.positives.tolist()}
    assert len(pairs) == len(pool.positives), "ranks refuses a pair that appears twice"
    return pairs, latents.items[pool.items_a.numpy()].tolist(), latents.items[pool.items_b.numpy()].tolist()


def expected_pairs(pictures: Rows, captions: Rows) -> set[tuple[int, int]]:
    """A caption is right for each item that has it, and so is a picture."""
    captions_of: dict[str, set[str]] = {}
    pictures_of: dict[str, set[str]] = {}
    for item, content in captions:
        captions_of.setdefault(item, set()).add(content)
    for item, content in pictures:
        pictures_of.setdefault(item, set()).add(content)
    return {
        (i, j)
        for i, (item, picture) in enumerate(pictures)
        for j, (other, caption) in enumerate(captions)
        if caption in captions_of.get(item, ()) or picture in pictures_of.get(other, ())
    }


def random_rows(seed: int, prefix: str, contents: int) -> Rows:
    rng = np.random.default_rng(seed)
    return [(f"item{rng.integers(12)}", f"{prefix}{rng.integers(contents)}") for _ in range(30)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("pictures", "captions"), [(10**9, 10**9), (10**9, 15), (15, 10**9)])
def test_positives_are_those_of_the_dictionary(seed: int, pictures: int, captions: int) -> None:
    images, texts = random_rows(seed, "p", pictures), random_rows(seed + 100, "c", captions)
    pairs, items_a, items_b = pooled(paired(images, texts))
    assert pairs == expected_pairs(images, texts)
    assert items_a == sorted((item for item, _ in images))
    assert items_b == sorted((item for item, _ in texts))


def test_a_shared_caption_is_right_for_every_item_that_has_it() -> None:
    images = [("cat", "cat.png"), ("dog", "dog.png"), ("fox", "fox.png")]
    texts = [("cat", "an animal"), ("dog", "an animal"), ("dog", "a dog"), ("fox", "a fox")]
    pairs, _, _ = pooled(paired(images, texts))
    assert pairs == {(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 3)}


def test_a_caption_that_an_item_has_twice_is_one_pair_for_each_row() -> None:
    pairs, _, _ = pooled(paired([("cat", "cat.png")], [("cat", "a cat"), ("cat", "a cat")]))
    assert pairs == {(0, 0), (0, 1)}


def test_rows_without_a_partner_stay_in_the_pool() -> None:
    images = [("alone", "alone.png"), ("cat", "cat.png")]
    texts = [("cat", "a cat"), ("silent", "no picture")]
    pairs, items_a, items_b = pooled(paired(images, texts))
    assert (pairs, items_a, items_b) == ({(1, 0)}, ["alone", "cat"], ["cat", "silent"])


def test_an_item_without_a_caption_takes_that_of_an_equal_picture() -> None:
    pairs, _, _ = pooled(paired([("cat", "same.png"), ("copy", "same.png")], [("cat", "a cat")]))
    assert pairs == {(0, 0), (1, 0)}


def test_a_split_pools_its_own_rows_only() -> None:
    latents = PairedLatents.from_arrays(
        {"image": np.zeros((4, 1), np.float32), "text": np.zeros((4, 1), np.float32)},
        {"image": list("abcd"), "text": list("dcba")},
        {"a": "train", "b": "test", "c": "train", "d": "test"},
    )
    pairs, items_a, items_b = pooled(latents.split("test"))
    assert (pairs, items_a, items_b) == ({(1, 2), (3, 0)}, ["b", "d"], ["b", "d"])


def test_nothing_to_retrieve_is_an_error() -> None:
    with pytest.raises(FusemixError, match="no item of these 2 has both image and text"):
        pool_rows(paired([("cat", "cat.png")], [("dog", "a dog")]), "image", "text")


def test_an_unknown_modality_is_named() -> None:
    with pytest.raises(FusemixError, match="'sound'"):
        pool_rows(paired([("cat", "cat.png")], [("cat", "a cat")]), "image", "sound")
