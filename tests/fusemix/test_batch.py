from __future__ import annotations

import numpy as np
import pytest
import torch

from fusemix.batch import BatchSource, LatentBatch, gather, one_pair_a_row
from fusemix.errors import FusemixError
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
        sources={"image": [f"{n}.png" for n in reversed(names)], "text": [f"{i}:{r}" for i, r in captions]},
    )


def same(a: LatentBatch, b: LatentBatch) -> bool:
    return torch.equal(a.items, b.items) and all(torch.equal(a.values[name], b.values[name]) for name in a.values)


def test_a_batch_holds_distinct_items_with_one_of_their_own_rows() -> None:
    latents = make_latents()
    source = BatchSource(latents, 7, seed=0)
    for step in range(20):
        batch = source.batch(step)
        assert len(batch) == len(set(batch.items.tolist())) == 7
        for place, item in enumerate(batch.items.tolist()):
            assert batch.values["image"][place].tolist() == [item, 0]
            owner, row = batch.values["text"][place].tolist()
            has_text = item % 4 > 0
            assert bool(batch.present["text"][place]) == has_text
            assert (owner == item and row < item % 4) if has_text else (owner, row) == (0, 0)


def test_content_is_that_of_the_row_drawn() -> None:
    latents = make_latents()
    text = latents["text"]
    contents = {tuple(value.tolist()): int(content) for value, content in zip(text.values, text.content, strict=True)}
    batch = BatchSource(latents, 10, seed=0).batch(0)
    assert batch.content["text"].shape == (10, 1)
    for place in range(10):
        if batch.present["text"][place]:
            assert contents[tuple(batch.values["text"][place].tolist())] == int(batch.content["text"][place])


def test_every_row_of_an_item_is_drawn_equally_often() -> None:
    source = BatchSource(make_latents(), 10, seed=0)
    drawn: dict[tuple[float, ...], int] = {}
    for step in range(600):
        batch = source.batch(step)
        for value in batch.values["text"][batch.present["text"]].tolist():
            drawn[tuple(value)] = drawn.get(tuple(value), 0) + 1
    assert len(drawn) == sum(index % 4 for index in range(10))
    assert all(count == pytest.approx(600 / (item % 4), rel=0.25) for (item, _), count in drawn.items())


def test_an_epoch_shows_every_item_once_and_the_next_in_another_order() -> None:
    source = BatchSource(make_latents(), 5, seed=0)
    epochs = [[int(item) for step in (2 * e, 2 * e + 1) for item in source.batch(step).items] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_tail_that_fills_no_batch_is_dropped() -> None:
    source = BatchSource(make_latents(), 4, seed=0)
    assert source.steps_per_epoch == 2
    seen = [set(source.batch(step).items.tolist()) for step in range(2)]
    assert len(seen[0] | seen[1]) == 8


def test_any_step_can_be_made_without_those_before_it() -> None:
    through, latents = BatchSource(make_latents(), 4, seed=3), make_latents()
    batches = [through.batch(step) for step in range(7)]
    for step in (6, 0, 3):
        assert same(BatchSource(latents, 4, seed=3).batch(step), batches[step])
        assert same(through.batch(step), batches[step])


def test_seed_changes_order_and_rows() -> None:
    batches = [BatchSource(make_latents(), 10, seed).batch(0) for seed in (0, 1)]
    assert not torch.equal(batches[0].items, batches[1].items)


def test_every_row_can_be_a_pair_of_its_own() -> None:
    latents = make_latents()
    flat = one_pair_a_row(latents)
    # Item i has one image and i % 4 captions, so max(1, i % 4) pairs.
    expected = [(index, row) for index in range(10) for row in range(max(1, index % 4))]
    assert flat.items.tolist() == [f"{index:02d}" for index, _ in expected]
    assert set(flat.splits) == {"train"}
    batch = gather(flat, torch.arange(len(flat)), generator(0))
    assert batch.values["image"].tolist() == [[index, 0] for index, _ in expected]
    assert batch.present["text"].tolist() == [index % 4 > 0 for index, _ in expected]
    captions = [[index, row] if index % 4 else [0, 0] for index, row in expected]
    assert batch.values["text"].tolist() == captions
    assert flat["text"].values is latents["text"].values


def test_rows_of_several_modalities_are_taken_in_turn() -> None:
    latents = PairedLatents.from_arrays(
        {"image": np.array([[0.0], [1.0], [9.0]]), "text": np.arange(5.0)[:, None], "audio": np.array([[7.0]])},
        {"image": ["a", "a", "b"], "text": ["a"] * 5, "audio": ["c"]},
        dict.fromkeys("abc", "train"),
    )
    batch = gather(one_pair_a_row(latents), torch.arange(7), generator(0))
    assert batch.values["image"][:, 0].tolist() == [0, 1, 0, 1, 0, 9, 0]
    assert batch.values["text"][:, 0].tolist() == [0, 1, 2, 3, 4, 0, 0]
    assert batch.present["image"].tolist() == [True] * 6 + [False]
    assert batch.present["text"].tolist() == [True] * 5 + [False] * 2
    assert batch.present["audio"].tolist() == [False] * 6 + [True]


def test_captions_of_one_item_meet_in_a_batch_once_each_is_a_pair() -> None:
    source = BatchSource(one_pair_a_row(make_latents().split("train")), 16, seed=0)
    batch = source.batch(0)
    assert source.steps_per_epoch == 1
    texts = batch.values["text"][batch.present["text"]].tolist()
    assert len({tuple(text) for text in texts}) == len(texts) == 13
    images = batch.content["image"][:, 0].tolist()
    assert len(set(images)) == 10 < len(images)


def test_latents_of_half_precision_come_out_in_float32() -> None:
    latents = PairedLatents.from_arrays(
        {"image": np.ones((2, 2), np.float16)}, {"image": ["a", "b"]}, {"a": "train", "b": "train"}
    )
    batch = gather(latents, torch.tensor([1]), generator(0))
    assert batch.values["image"].dtype == torch.float32


def test_too_few_items_are_refused_with_the_batch_size_that_fits() -> None:
    with pytest.raises(FusemixError, match=r"10 items to train on, but a step takes 11 .*at most 5 with mixup, 10"):
        BatchSource(make_latents(), 11, seed=0)


def test_moving_a_batch_keeps_all_of_it() -> None:
    batch = BatchSource(make_latents(), 4, seed=0).batch(0)
    moved = batch.to(torch.device("meta"))
    assert {
        tensor.device.type for part in (moved.values, moved.present, moved.content) for tensor in part.values()
    } == {"meta"}
    assert moved.parents.device.type == "meta"
