"""The retrieval benchmark against direct computation on a small joint space."""

from __future__ import annotations

import json
from dataclasses import replace
from math import comb

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fusemix.adapters import LinearAdapter
from fusemix.benchmarks.bootstrap import ItemBootstrap
from fusemix.benchmarks.per_query import per_query
from fusemix.benchmarks.retrieval import evaluate_pairs, evaluate_retrieval, measurable_pairs
from fusemix.benchmarks.retrieval_result import DirectionResult
from fusemix.benchmarks.settings import BenchmarkSettings
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents

from .small_world import encoded_by, identity_space, small_world

SETTINGS = BenchmarkSettings(k=(1, 3, 10, 1000), draws=200)


def unit(latents: PairedLatents, modality: str) -> npt.NDArray[np.float64]:
    of = latents[modality]
    values = of.values[of.rows].double().numpy()
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def right_answers(latents: PairedLatents) -> npt.NDArray[np.bool_]:
    """Whether the item of a picture has the caption."""
    text = latents["text"]
    captions = [text.sources[int(row)] for row in text.rows]
    of_item = text.item_of_row.numpy()
    return np.array(
        [
            [
                caption in {c for c, item in zip(captions, of_item, strict=True) if item == picture}
                for caption in captions
            ]
            for picture in latents["image"].item_of_row.tolist()
        ]
    )


def best_ranks(scores: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The rank of each query's best right answer, its other right answers taken out."""
    return np.array([1.0 + (row[~r] > row[r].max()).sum() for row, r in zip(scores, right, strict=True) if r.any()])


@pytest.fixture(scope="module")
def world() -> PairedLatents:
    return small_world()


@pytest.mark.parametrize("split", ["test", "val"])
def test_figures_are_those_of_the_score_matrix(world: PairedLatents, split: str) -> None:
    result = evaluate_retrieval(
        identity_space(), world, "image", "text", BenchmarkSettings(split=split, k=(1, 3, 10), draws=10)
    )
    items = world.split(split)
    scores, right = unit(items, "image") @ unit(items, "text").T, right_answers(items)
    assert (result.protocol.name, result.dataset, result.split, result.items) == (
        "generic",
        "small",
        split,
        len(items),
    )
    means = []
    for direction, s, r in zip(result.directions, (scores, scores.T), (right, right.T), strict=True):
        expected = best_ranks(s, r)
        assert (direction.queries, direction.gallery, direction.tie_rate) == (len(expected), s.shape[1], 0.0)
        for k in (1, 3, 10):
            assert direction.metrics[f"R@{k}"].value == pytest.approx((expected <= k).mean())
            means.append((expected <= k).mean())
        assert direction.metrics["MRR"].value == pytest.approx((1 / expected).mean())
        assert direction.metrics["MedR"].value == np.median(expected)
        assert direction.metrics["MeanR"].value == pytest.approx(expected.mean())
    assert [direction.name for direction in result.directions] == ["image to text", "text to image"]
    assert result.mean_recall.value == pytest.approx(np.mean(means))
    assert result.rsum.value == pytest.approx(100 * np.sum(means))
    assert result.rows == {"image": scores.shape[0], "text": scores.shape[1]}
    assert result.warnings == ()


def test_intervals_are_those_of_the_bootstrap_over_items(world: PairedLatents) -> None:
    result = evaluate_retrieval(identity_space(), world, "image", "text", SETTINGS)
    items = world.split("test")
    bootstrap = ItemBootstrap(len(items), SETTINGS.draws, SETTINGS.seeds[0])
    both = per_query(identity_space(), items, "image", "text", SETTINGS.k)
    for direction, figures in zip(result.directions, both, strict=True):
        draws = {key: bootstrap.means(values, figures.items) for key, values in figures.metrics.items()}
        draws["MedR"] = bootstrap.medians(figures.ranks, figures.items)
        draws["MeanR"] = bootstrap.means(figures.ranks, figures.items)
        for key, interval in direction.metrics.items():
            assert [interval.low, interval.high] == pytest.approx(np.quantile(draws[key], [0.025, 0.975]).tolist())
    recalls = [bootstrap.means(one.metrics[f"R@{k}"], one.items) for one in both for k in SETTINGS.k]
    low, high = np.quantile(np.mean(recalls, axis=0), [0.025, 0.975])
    assert [result.mean_recall.low, result.mean_recall.high] == pytest.approx([low, high])
    assert low < result.mean_recall.value < high


def test_each_query_knows_its_item(world: PairedLatents) -> None:
    items = world.split("test")
    forward, backward = per_query(identity_space(), items, "image", "text", (1,))
    right = right_answers(items)
    assert forward.items.tolist() == items["image"].item_of_row.numpy()[right.any(axis=1)].tolist()
    assert backward.items.tolist() == items["text"].item_of_row.numpy()[right.any(axis=0)].tolist()


def test_chance_is_the_hypergeometric_probability_of_a_hit(world: PairedLatents) -> None:
    result = evaluate_retrieval(identity_space(), world, "image", "text", SETTINGS)
    right = right_answers(world.split("test"))
    assert len(set(right.sum(axis=1))) > 1, "queries with different numbers of right answers"
    for direction, r in zip(result.directions, (right, right.T), strict=True):
        n = r.shape[1]
        for k in SETTINGS.k:
            missed = [comb(n - int(p), min(k, n)) / comb(n, min(k, n)) for p in r.sum(axis=1) if p]
            assert direction.chance[f"R@{k}"] == pytest.approx(1 - np.mean(missed), rel=1e-12)


def test_a_space_that_tells_nothing_apart_is_at_chance() -> None:
    ids = [f"item{index}" for index in range(20)]
    ones = np.ones((20, 6), np.float32)
    collapsed = PairedLatents.from_arrays(
        {"image": ones, "text": ones}, {"image": ids, "text": ids}, dict.fromkeys(ids, "test")
    )
    for direction in evaluate_retrieval(identity_space(), collapsed, "image", "text", SETTINGS).directions:
        assert direction.tie_rate == 1
        assert {key: direction.metrics[key].value for key in direction.chance} == pytest.approx(direction.chance)
        assert direction.metrics["MedR"].value == 10.5


def test_the_result_goes_through_json(world: PairedLatents) -> None:
    result = evaluate_retrieval(identity_space(), world, "image", "text", SETTINGS)
    read = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [direction["name"] for direction in read["directions"]] == ["image to text", "text to image"]
    for direction, of in zip(read["directions"], result.directions, strict=True):
        recalls = {f"{name}@{k}" for name in ("R", "recall") for k in SETTINGS.k}
        assert direction["metrics"].keys() == recalls | {"MRR", "mAP@10", "MedR", "MeanR"}
        assert direction["metrics"]["MRR"] == vars(of.metrics["MRR"])
    assert (read["draws"], read["items"], read["protocol"]["name"]) == (200, 25, "generic")


def test_the_same_call_gives_the_same_numbers(world: PairedLatents) -> None:
    first, second = (evaluate_retrieval(identity_space(), world, "image", "text", SETTINGS) for _ in range(2))
    assert first == second


def test_a_split_without_items_is_an_error(world: PairedLatents) -> None:
    with pytest.raises(FusemixError, match="no item in the split 'dev'"):
        evaluate_retrieval(identity_space(), world, "image", "text", BenchmarkSettings(split="dev"))


def test_latents_of_another_encoder_are_refused(world: PairedLatents) -> None:
    mine, other = encoded_by(world, "mine"), encoded_by(world, "other")
    space = identity_space(specs={modality: of.spec for modality, of in mine.modalities.items()})
    evaluate_retrieval(space, mine, "image", "text", SETTINGS)
    with pytest.raises(FusemixError, match="'mine' / 'other'"):
        evaluate_retrieval(space, other, "image", "text", SETTINGS)


@pytest.fixture(scope="module")
def three() -> tuple[PairedLatents, JointSpace]:
    """Return a world of three modalities, no item of which lacks more than one, and a space of all."""
    rng = np.random.default_rng(3)
    ids = [f"item{index:02}" for index in range(60)]
    factors = rng.normal(size=(60, 6))
    having = {"image": ids[:50], "text": sorted(2 * ids[5:]), "audio": [*ids[:20], *ids[30:]]}
    latents = {
        modality: (factors[[int(item[-2:]) for item in items]] + rng.normal(size=(len(items), 6))).astype(np.float32)
        for modality, items in having.items()
    }
    splits = {item: ("test", "train")[index % 2] for index, item in enumerate(ids)}
    adapters = {modality: LinearAdapter(6, 6) for modality in sorted(having)}
    for adapter in adapters.values():
        torch.nn.init.eye_(adapter.linear.weight)
    return PairedLatents.from_arrays(latents, having, splits, dataset="three"), JointSpace(adapters)


def without(latents: PairedLatents, *modalities: str) -> PairedLatents:
    kept = {name: of for name, of in latents.modalities.items() if name not in modalities}
    return replace(latents, modalities=kept)


def test_all_pairs_have_the_figures_of_each_alone(three: tuple[PairedLatents, JointSpace]) -> None:
    latents, space = three
    trained = [("text", "image"), ("audio", "text")]
    result = evaluate_pairs(space, latents, trained, SETTINGS)
    expected: list[DirectionResult] = []
    for a, b in [*trained, ("image", "audio")]:
        expected += evaluate_retrieval(space, latents, a, b, SETTINGS).directions
    assert list(result.directions) == [*expected[:4], *(replace(one, trained=False) for one in expected[4:])]
    assert [one.name for one in result.directions[4:]] == ["image to audio", "audio to image"]
    recalls = [one.metrics[f"R@{k}"].value for one in result.directions[:4] for k in SETTINGS.k]
    assert result.mean_recall.value == pytest.approx(np.mean(recalls))
    assert result.items == 30


def test_two_modalities_have_one_pair(world: PairedLatents) -> None:
    alone = evaluate_retrieval(identity_space(), world, "image", "text", SETTINGS)
    assert evaluate_pairs(identity_space(), world, [("image", "text")], SETTINGS) == alone


def test_pairs_that_no_item_has_are_left_out(three: tuple[PairedLatents, JointSpace]) -> None:
    latents, space = three
    no_image = without(latents, "image")
    result = evaluate_pairs(space, no_image, [("image", "text"), ("image", "audio")], SETTINGS)
    assert [(one.name, one.trained) for one in result.directions] == [
        ("text to audio", False),
        ("audio to text", False),
    ]
    # Nothing was trained, so all of it counts.
    alone = evaluate_retrieval(space, no_image, "text", "audio", SETTINGS)
    assert result.mean_recall == alone.mean_recall
    few = latents.at(torch.arange(20, 35))
    assert measurable_pairs(few, ["image", "text", "audio"], []) == [
        ("image", "text"),
        ("image", "audio"),
        ("text", "audio"),
    ]
    assert measurable_pairs(latents.at(torch.arange(5)), ["image", "text", "audio"], [("audio", "text")]) == [
        ("image", "audio")
    ]


def test_a_split_without_any_pair_is_an_error(three: tuple[PairedLatents, JointSpace]) -> None:
    latents, space = three
    alone = without(latents, "image", "text")
    with pytest.raises(FusemixError, match="no item of the split 'test' of 'three' has two of audio, image, text"):
        evaluate_pairs(space, alone, [("audio", "text")], SETTINGS)


def test_a_modality_that_the_space_does_not_have_is_left_out(three: tuple[PairedLatents, JointSpace]) -> None:
    latents, space = three
    two = JointSpace({name: space.adapter(name) for name in ("image", "text")})
    assert [one.name for one in evaluate_pairs(two, latents, [("image", "text")], SETTINGS).directions] == [
        "image to text",
        "text to image",
    ]
