from __future__ import annotations

import numpy as np
import pytest
import torch

from fusemix.batch import ABSENT, DrawnItems, ItemSource, LatentBatch, draw_rows, one_pair_a_row, pair_counts
from fusemix.latents.paired import PairedLatents
from fusemix.randomness import generator


def make_latents() -> PairedLatents:
    """Return 10 items: one image each, item i has i % 4 captions; the latent of a row is its item and its number."""
    names = [f"{index:02d}" for index in range(10)]
    captions = [(index, row) for index in range(10) for row in range(index % 4)]
    return PairedLatents.from_arrays(
        {
            "image": np.array([[index, 0] for index in reversed(range(10))], np.float32),
            "text": np.array(captions, np.float32),
        },
        {"image": list(reversed(names)), "text": [names[index] for index, _ in captions]},
        dict.fromkeys(names, "train"),
    )


def latents_of(latents: PairedLatents, modality: str, rows: torch.Tensor) -> list[list[float] | None]:
    return [None if row == ABSENT else latents[modality].values[row].tolist() for row in rows.tolist()]


def same(a: DrawnItems, b: DrawnItems) -> bool:
    return torch.equal(a.items, b.items) and all(torch.equal(a.rows[name], b.rows[name]) for name in a.rows)


def test_a_step_sees_distinct_items_with_one_of_their_own_rows() -> None:
    latents = make_latents()
    source = ItemSource(latents, 7, seed=0)
    for step in range(20):
        drawn = source.draw(step)
        items = drawn.items.tolist()
        assert len(items) == len(set(items)) == 7
        assert latents_of(latents, "image", drawn.rows["image"]) == [[item, 0] for item in items]
        for item, text in zip(items, latents_of(latents, "text", drawn.rows["text"]), strict=True):
            if item % 4 == 0:
                assert text is None
            else:
                assert text in [[item, row] for row in range(item % 4)]


def test_every_row_of_an_item_is_drawn_equally_often() -> None:
    source = ItemSource(make_latents(), 10, seed=0)
    drawn = torch.stack([source.draw(step).rows["text"] for step in range(600)])
    rows, counts = drawn[drawn != ABSENT].unique(return_counts=True)
    texts = source.latents["text"].values[rows]
    assert len(texts) == sum(index % 4 for index in range(10))
    for (item, _), count in zip(texts.tolist(), counts.tolist(), strict=True):
        assert count == pytest.approx(600 / (item % 4), rel=0.25)


def test_an_epoch_shows_every_item_once_and_the_next_in_another_order() -> None:
    source = ItemSource(make_latents(), 5, seed=0)
    epochs = [[int(item) for step in (2 * e, 2 * e + 1) for item in source.draw(step).items] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_tail_that_fills_no_step_is_dropped() -> None:
    source = ItemSource(make_latents(), 4, seed=0)
    assert source.steps_per_epoch == 2
    seen = [set(source.draw(step).items.tolist()) for step in range(2)]
    assert len(seen[0] | seen[1]) == 8


def test_any_step_can_be_drawn_without_those_before_it() -> None:
    through, latents = ItemSource(make_latents(), 4, seed=3), make_latents()
    drawn = [through.draw(step) for step in range(7)]
    for step in (6, 0, 3):
        assert same(ItemSource(latents, 4, seed=3).draw(step), drawn[step])
        assert same(through.draw(step), drawn[step])


def test_seed_changes_order_and_rows() -> None:
    drawn = [ItemSource(make_latents(), 10, seed).draw(0) for seed in (0, 1)]
    assert not torch.equal(drawn[0].items, drawn[1].items)
    orders = [drawn[k].rows["text"][drawn[k].items.argsort()] for k in range(2)]
    assert not torch.equal(orders[0], orders[1])


def test_what_a_modality_draws_does_not_depend_on_how_many_rows_another_has() -> None:
    captions = [f"{item:02d}" for item in range(50) for _ in range(4)]
    drawn = []
    for images in (1, 2):
        names = sorted(set(captions)) * images
        latents = PairedLatents.from_arrays(
            {"image": np.ones((len(names), 1)), "text": np.ones((len(captions), 1))},
            {"image": names, "text": captions},
            dict.fromkeys(captions, "train"),
        )
        assert [latents[name].one_each for name in ("image", "text")] == [images == 1, False]
        drawn.append(draw_rows(latents, torch.arange(50), generator(0))["text"])
    assert torch.equal(*drawn)


def test_a_modality_without_any_row_is_absent_everywhere() -> None:
    latents = PairedLatents.from_arrays(
        {"image": np.ones((2, 1)), "text": np.ones((1, 1))},
        {"image": ["a", "b"], "text": ["c"]},
        {"a": "train", "b": "train", "c": "val"},
    ).split("train")
    assert draw_rows(latents, torch.tensor([1, 0]), generator(0))["text"].tolist() == [ABSENT, ABSENT]


def test_every_row_can_be_a_pair_of_its_own() -> None:
    latents = make_latents()
    flat = one_pair_a_row(latents)
    # Item i has one image and i % 4 captions, so max(1, i % 4) pairs.
    expected = [(index, row) for index in range(10) for row in range(max(1, index % 4))]
    assert flat.items.tolist() == [f"{index:02d}" for index, _ in expected]
    assert set(flat.splits) == {"train"}
    rows = draw_rows(flat, torch.arange(len(flat)), generator(0))
    assert latents_of(flat, "image", rows["image"]) == [[index, 0] for index, _ in expected]
    assert latents_of(flat, "text", rows["text"]) == [[i, row] if i % 4 else None for i, row in expected]
    assert flat["text"].values is latents["text"].values
    assert pair_counts(latents).tolist() == [max(1, index % 4) for index in range(10)]
    assert pair_counts(flat).tolist() == [1] * len(flat)


def test_rows_of_several_modalities_are_taken_in_turn() -> None:
    latents = PairedLatents.from_arrays(
        {"image": np.array([[0.0], [1.0], [9.0]]), "text": np.arange(5.0)[:, None], "audio": np.array([[7.0]])},
        {"image": ["a", "a", "b"], "text": ["a"] * 5, "audio": ["c"]},
        dict.fromkeys("abc", "train"),
    )
    flat = one_pair_a_row(latents)
    rows = draw_rows(flat, torch.arange(7), generator(0))
    assert latents_of(flat, "image", rows["image"]) == [[0], [1], [0], [1], [0], [9], None]
    assert latents_of(flat, "text", rows["text"]) == [[0], [1], [2], [3], [4], None, None]
    assert latents_of(flat, "audio", rows["audio"]) == [None] * 6 + [[7]]


def test_captions_of_one_item_meet_in_a_step_once_each_is_a_pair() -> None:
    source = ItemSource(one_pair_a_row(make_latents().split("train")), 16, seed=0)
    assert source.steps_per_epoch == 1
    drawn = source.draw(0)
    texts = drawn.rows["text"][drawn.rows["text"] != ABSENT].tolist()
    assert len(set(texts)) == len(texts) == 13
    assert len(set(drawn.rows["image"].tolist())) == 10 < len(drawn.items)


def test_the_items_of_a_batch_are_its_first_parents() -> None:
    parents = torch.tensor([[4, 1], [2, 2], [0, 3]])
    batch = LatentBatch({}, {}, parents, {})
    assert len(batch) == 3
    assert batch.items.tolist() == [4, 2, 0]


def test_moving_a_batch_moves_all_of_it() -> None:
    ones = {name: torch.ones(2, 3) for name in ("image", "text")}
    batch = LatentBatch(ones, {k: v[:, 0].bool() for k, v in ones.items()}, torch.ones(2, 1).long(), ones)
    moved = batch.to(torch.device("meta"))
    parts = [*moved.values.values(), *moved.present.values(), *moved.content.values(), moved.parents]
    assert {tensor.device.type for tensor in parts} == {"meta"}
