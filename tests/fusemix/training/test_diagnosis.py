from __future__ import annotations

import math

import torch
from torch import Tensor

from fusemix.adapters import LinearAdapter
from fusemix.batch import LatentBatch
from fusemix.joint_space import JointSpace
from fusemix.training import diagnosis


def ids(items: Tensor) -> list[str]:
    return [f"item{item}" for item in items.tolist()]


def describe(values: list[float], embeddings: list[float], present: list[bool] | None = None) -> str:
    """Describe a batch whose latents and embeddings are these numbers; the items 2n and 2n + 1 make the pair n."""
    size = len(values)
    has = torch.tensor(present or [True] * size)
    parents = torch.arange(2 * size).reshape(size, 2)
    batch = LatentBatch({"image": torch.tensor(values)[:, None]}, {"image": has}, parents, {"image": parents})
    return diagnosis.of_batch(batch, {"image": torch.tensor(embeddings)[:, None]}, ids)


def test_items_whose_embedding_is_not_finite_are_named_with_both_parents() -> None:
    assert describe([1.0, 9.0, 2.0, 3.0], [1.0, 1.0, math.nan, 1.0]) == (
        "image: norms up to 9 of latents and nan of embeddings, 1 of 4 embeddings not finite, look at item4, item5"
    )


def test_no_more_than_three_pairs_are_named() -> None:
    told = describe([1.0] * 9, [1.0] + [math.inf] * 8)
    assert told.endswith(
        "inf of embeddings, 8 of 9 embeddings not finite, look at item2, item3, item4, item5, item6, item7"
    )


def test_where_every_embedding_or_none_is_broken_the_largest_latents_are_named() -> None:
    for embedding in (1.0, math.nan):
        assert describe([1.0, 9.0, 2.0, 3.0, 5.0], [embedding] * 5).endswith(
            "look at item2, item3, item8, item9, item6, item7"
        )


def test_a_latent_that_is_not_finite_counts_as_the_largest() -> None:
    assert "look at item4, item5, item2" in describe([1.0, 9.0, math.nan, 3.0], [1.0] * 4)


def test_every_embedding_is_every_one_that_there_is() -> None:
    told = describe([1.0, 0.0, 2.0], [math.nan, 0.0, math.nan], [True, False, True])
    assert "2 of 2 embeddings not finite, look at item4, item5, item0" in told


def test_the_first_parameter_whose_gradient_is_not_finite_is_named() -> None:
    space = JointSpace({"image": LinearAdapter(2, 2), "text": LinearAdapter(2, 2)}, {"shared": 0.1})
    for number, weight in enumerate(space.parameters()):
        weight.grad = torch.full_like(weight, float(number))
    assert diagnosis.of_gradients(space) == "log_scales.shared"
    for broken in (math.nan, math.inf, -math.inf):
        weight = space.get_parameter("adapters.text.linear.weight")
        weight.grad = torch.zeros_like(weight).fill_(broken)
        assert diagnosis.of_gradients(space) == "adapters.text.linear.weight"
