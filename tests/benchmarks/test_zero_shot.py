"""Zero-shot classification against CLIP's recipe written out in float64."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import pytest
import torch
from torch import Tensor

from fusemix.benchmarks.class_prompts import ClassPrompts
from fusemix.benchmarks.zero_shot import class_embeddings, zero_shot
from fusemix.errors import FusemixError

from .labelled_world import Floats, labelled

DIM = 7
LETTERS = tuple("abcdefgh")
TEMPLATES = ("a photo of a {}.", "{} {}", "art of the {}")


def vector(text: str) -> Floats:
    seed = int.from_bytes(blake2b(text.encode(), digest_size=4).digest())
    return np.random.default_rng(seed).normal(size=DIM)


def embed(texts: Sequence[str]) -> Tensor:
    """Texts -> vectors of different lengths that depend on nothing but the text."""
    return torch.from_numpy(np.stack([vector(text) for text in texts])).float()


def unit(values: Floats) -> Floats:
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True))


def by_hand(prompts: ClassPrompts) -> Floats:
    per_class = [unit(embed(prompts.prompts(name)).double().numpy()).mean(axis=0) for name in prompts.names]
    return unit(np.stack(per_class))


def features(rows: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(rows, DIM))


def test_a_class_is_the_mean_of_its_prompts_on_the_sphere() -> None:
    prompts = ClassPrompts(LETTERS, TEMPLATES)
    found = class_embeddings(prompts, embed)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), by_hand(prompts), atol=1e-6)


def test_texts_are_embedded_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusemix.benchmarks.zero_shot.PROMPTS_AT_ONCE", 7)
    asked: list[int] = []

    def counted(texts: Sequence[str]) -> Tensor:
        asked.append(len(texts))
        return embed(texts)

    prompts = ClassPrompts(LETTERS, TEMPLATES)
    np.testing.assert_allclose(class_embeddings(prompts, counted).numpy(), by_hand(prompts), atol=1e-6)
    assert asked == [6, 6, 6, 6]


def test_figures_are_those_of_the_cosines() -> None:
    prompts = ClassPrompts(LETTERS, TEMPLATES)
    labels = np.random.default_rng(1).integers(8, size=90)
    x = features(90) + 2 * by_hand(prompts)[labels]
    result = zero_shot(prompts, embed, labelled(x, labels.tolist(), classes=8), draws=20)
    cosines = unit(x) @ by_hand(prompts).T
    places = (cosines > cosines[np.arange(90), labels][:, None]).sum(axis=1)
    assert result.metrics["acc1"].value == pytest.approx((places < 1).mean())
    assert result.metrics["acc5"].value == pytest.approx((places < 5).mean())
    recall = np.mean([(places < 1)[labels == c].mean() for c in range(8)])
    assert result.metrics["mean_per_class_recall"].value == pytest.approx(recall)
    assert 0.2 < result.metrics["acc1"].value < 1
    assert (result.method, result.settings["templates"], result.tie_rate) == ("zero-shot", 3, 0.0)


def test_classes_of_one_name_tie_and_share_the_hit() -> None:
    prompts = ClassPrompts(("a", "b", "a"), TEMPLATES, repeated=("a",))
    a, b, _ = by_hand(prompts)
    rows = labelled(np.stack([a, a, b]), [0, 2, 1], classes=3)
    rows = type(rows)(**{**vars(rows), "names": prompts.names})
    result = zero_shot(prompts, embed, rows, k=(1, 2), draws=10)
    assert result.metrics["acc1"].value == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert result.metrics["acc2"].value == 1
    assert result.tie_rate == pytest.approx(2 / 3)


def test_a_text_encoder_that_says_one_thing_has_chance_level() -> None:
    rows = labelled(features(30), [number % 8 for number in range(30)], classes=8)
    result = zero_shot(ClassPrompts(LETTERS, TEMPLATES), lambda texts: torch.ones(len(texts), DIM), rows, draws=10)
    assert result.metrics["acc1"].value == pytest.approx(1 / 8)


def test_the_order_of_the_rows_changes_nothing() -> None:
    labels = np.random.default_rng(1).integers(8, size=50)
    rows = labelled(features(50), labels.tolist(), classes=8)
    prompts = ClassPrompts(LETTERS, TEMPLATES)
    one = zero_shot(prompts, embed, rows, draws=10)
    other = zero_shot(prompts, embed, rows.at(np.random.default_rng(2).permutation(50)), draws=10)
    values = [{name: interval.value for name, interval in result.metrics.items()} for result in (one, other)]
    assert values[0] == pytest.approx(values[1], abs=1e-12)


def test_each_fold_has_its_figures() -> None:
    splits = [f"fold{number % 5 + 1}" for number in range(40)]
    rows = labelled(features(40), [number % 8 for number in range(40)], classes=8, splits=splits)
    result = zero_shot(ClassPrompts(LETTERS, TEMPLATES), embed, rows, draws=10)
    assert list(result.folds) == [f"fold{number}" for number in range(1, 6)]
    assert result.over_folds["acc1"].mean == pytest.approx(result.metrics["acc1"].value)


def test_what_does_not_belong_together_is_refused() -> None:
    prompts = ClassPrompts(LETTERS, TEMPLATES)
    with pytest.raises(FusemixError, match="needs embeddings, not latents: give the joint space"):
        zero_shot(prompts, embed, labelled(features(3), [0, 1, 2], classes=8, kind="latents"))
    with pytest.raises(FusemixError, match="labelled with 7 classes that are not the 8 of the prompts"):
        zero_shot(prompts, embed, labelled(features(3), [0, 1, 2], classes=7))
    with pytest.raises(FusemixError, match="the texts are embedded in 7 dimensions and the rows in 6"):
        zero_shot(prompts, embed, labelled(features(3)[:, :6], [0, 1, 2], classes=8))
