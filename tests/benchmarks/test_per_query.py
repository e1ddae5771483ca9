"""Figures of each query against direct computation, by protocols that differ in what is right and in galleries."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fusemix.benchmarks.bootstrap import ItemBootstrap
from fusemix.benchmarks.per_query import PerQuery, per_query
from fusemix.benchmarks.protocols import COCO_1K, COCO_5K, GENERIC, PROTOCOLS, Protocol
from fusemix.benchmarks.retrieval import evaluate_retrieval
from fusemix.benchmarks.settings import BenchmarkSettings
from fusemix.latents.paired import PairedLatents

from .small_world import identity_space, small_world
from .test_retrieval import right_answers, unit

K = (1, 3, 10)
TWO_FOLDS = replace(COCO_1K, folds=2)


@pytest.fixture(scope="module")
def split() -> PairedLatents:
    return replace(small_world(), dataset=replace(small_world().dataset, name="coco")).split("test")


def own_answers(latents: PairedLatents) -> npt.NDArray[np.bool_]:
    return np.asarray(latents["image"].item_of_row.numpy()[:, None] == latents["text"].item_of_row.numpy())


def expected_figures(scores: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> dict[str, list[float]]:
    """Sort all answers of each query that has a right one, best first."""
    found: dict[str, list[float]] = {name: [] for name in (*(f"recall@{k}" for k in K), "mAP@10")}
    for row, of in zip(scores, right, strict=True):
        if of.any():
            places = 1 + np.flatnonzero(of[np.argsort(-row)])
            for k in K:
                found[f"recall@{k}"].append((places <= k).sum() / len(places))
            precisions = [(index + 1) / place for index, place in enumerate(places) if place <= 10]
            found["mAP@10"].append(sum(precisions) / len(places))
    return found


@pytest.mark.parametrize("protocol", [GENERIC, COCO_5K], ids=lambda protocol: protocol.name)
def test_true_recall_and_average_precision_are_those_of_the_sorted_answers(
    split: PairedLatents, protocol: Protocol
) -> None:
    measured = per_query(identity_space(), split, "image", "text", K, protocol)
    right = right_answers(split) if protocol is GENERIC else own_answers(split)
    scores = unit(split, "image") @ unit(split, "text").T
    if protocol is not GENERIC:
        # A caption of another picture ties with the same one of this: only pictures without such are compared.
        shared = right_answers(split) != right
        keep = ~shared.any(axis=1)[right.any(axis=1)]
    else:
        keep = np.ones(int(right.any(axis=1).sum()), bool)
    for name, values in expected_figures(scores, right).items():
        assert measured[0].metrics[name][keep] == pytest.approx(np.array(values)[keep])
    assert measured[0].several
    backward = expected_figures(scores.T, right.T)
    if protocol is GENERIC:
        for name, values in backward.items():
            assert measured[1].metrics[name] == pytest.approx(np.array(values))


def test_a_shared_caption_is_right_for_each_picture_only_where_content_counts(split: PairedLatents) -> None:
    generic, coco = (per_query(identity_space(), split, "image", "text", K, of) for of in (GENERIC, COCO_5K))
    assert generic[1].several
    assert generic[1].tie_rate == 0
    assert coco[0].tie_rate > 0, "the caption of another picture is wrong, and ties"


def test_rows_without_a_right_answer_are_left_out_and_counted(split: PairedLatents) -> None:
    right = own_answers(split)
    for one, of in zip(
        per_query(identity_space(), split, "image", "text", K, COCO_5K), (right, right.T), strict=True
    ):
        assert len(one.items) == of.any(axis=1).sum()
        assert one.left_out == (~of.any(axis=1)).sum()
    assert sum(one.left_out for one in per_query(identity_space(), split, "image", "text", K)) > 0


def test_rows_that_repeat_another_of_the_gallery_are_counted(split: PairedLatents) -> None:
    text = split["text"]
    captions = [text.sources[int(row)] for row in text.rows]
    forward, backward = per_query(identity_space(), split, "image", "text", K)
    assert (forward.repeated, backward.repeated) == (len(captions) - len(set(captions)), 0)
    assert forward.repeated > 0


def test_each_query_knows_its_best_right_and_its_best_wrong_answer(split: PairedLatents) -> None:
    image, text = unit(split, "image"), unit(split, "text")
    right = right_answers(split)
    both = per_query(identity_space(), split, "image", "text", K)
    for one, scores, of, names in (
        (both[0], image @ text.T, right, ("image", "text")),
        (both[1], text @ image.T, right.T, ("text", "image")),
    ):
        queries = np.flatnonzero(of.any(axis=1))
        own, answers = (split[name].rows.numpy() for name in names)
        masked = np.where(of, -np.inf, scores)[queries]
        assert one.rows.tolist() == own[queries].tolist()
        best = np.where(of, scores, -np.inf)[queries]
        content = split[names[1]].content.numpy()
        # Equal captions are equally near: which of them is named is no matter.
        assert content[one.right].tolist() == content[answers[best.argmax(axis=1)]].tolist()
        assert content[one.wrong].tolist() == content[answers[masked.argmax(axis=1)]].tolist()
        assert one.scores == pytest.approx(np.stack([best.max(axis=1), masked.max(axis=1)], axis=1), abs=1e-6)


def test_a_query_whose_every_answer_is_right_has_no_wrong_one() -> None:
    ids = ["a", "a", "a"]
    values = np.eye(3, 6, dtype=np.float32)
    latents = PairedLatents.from_arrays({"image": values, "text": values}, {"image": ids, "text": ids}, {"a": "test"})
    for one in per_query(identity_space(), latents, "image", "text", K):
        assert one.wrong.tolist() == [-1, -1, -1]
        assert one.scores[:, 1].tolist() == [-np.inf] * 3
        assert one.metrics["R@1"].tolist() == [1, 1, 1]
        assert one.metrics["recall@1"] == pytest.approx(1 / 3)


def folds_apart(split: PairedLatents) -> list[tuple[PerQuery, PerQuery]]:
    return [
        per_query(identity_space(), split.at(items), "image", "text", K, COCO_5K)
        for items in TWO_FOLDS.galleries(split)
    ]


def test_each_fold_is_ranked_alone(split: PairedLatents) -> None:
    whole = per_query(identity_space(), split, "image", "text", K, TWO_FOLDS)
    apart = folds_apart(split)
    folds = TWO_FOLDS.galleries(split)
    for side, one in enumerate(whole):
        assert one.gallery == sum(of[side].gallery for of in apart)
        for fold, (items, of) in enumerate(zip(folds, apart, strict=True)):
            here = one.folds == fold
            assert one.ranks[here].tolist() == of[side].ranks.tolist()
            assert one.rows[here].tolist() == of[side].rows.tolist()
            assert one.items[here].tolist() == items[of[side].items].tolist()


def test_a_figure_is_the_mean_over_folds(split: PairedLatents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast("dict[str, Protocol]", PROTOCOLS), "coco-1k", TWO_FOLDS)
    settings = BenchmarkSettings(k=(3,), draws=50, protocol="coco-1k")
    result = evaluate_retrieval(identity_space(), split, "image", "text", settings)
    apart = folds_apart(split)
    assert len(apart[0][0].items) != len(apart[1][0].items), "folds that count the same with different queries"
    bootstrap = ItemBootstrap(len(split), 50, 0)
    for side, direction in enumerate(result.directions):
        ones = [of[side] for of in apart]
        for key in ("R@3", "recall@3", "MRR", "mAP@10"):
            assert direction.metrics[key].value == pytest.approx(np.mean([one.metrics[key].mean() for one in ones]))
        medians = [np.floor(np.median(one.ranks)) for one in ones]
        assert direction.metrics["MedR"].value == np.mean(medians)
        draws = np.mean(
            [
                bootstrap.means(one.metrics["MRR"], items[one.items].numpy())
                for items, one in zip(TWO_FOLDS.galleries(split), ones, strict=True)
            ],
            axis=0,
        )
        interval = direction.metrics["MRR"]
        assert [interval.low, interval.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]).tolist())
    assert "not what the protocol coco-1k was published with" in result.warnings[0]


def test_medians_are_rounded_by_the_protocol_of_the_dataset(split: PairedLatents) -> None:
    coco = evaluate_retrieval(identity_space(), split, "image", "text", BenchmarkSettings(draws=5))
    assert (coco.protocol.name, len(coco.warnings)) == ("coco-5k", 1)
    for direction, one in zip(
        coco.directions, per_query(identity_space(), split, "image", "text", K, COCO_5K), strict=True
    ):
        assert direction.metrics["MedR"].value == np.floor(np.median(one.ranks - 1)) + 1


def test_no_latent_is_taken_for_that_of_another_item_in_a_fold(split: PairedLatents) -> None:
    """Fold the items so that their order in the file is not that of their ids."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(1))
    ids = [f"{int(place):03}" for place in order]
    values = np.random.default_rng(0).normal(size=(len(ids), 6)).astype(np.float32)
    latents = PairedLatents.from_arrays(
        {"image": values, "text": values}, {"image": ids, "text": ids}, dict.fromkeys(ids, "test")
    )
    for one in per_query(identity_space(), latents, "image", "text", (1,), TWO_FOLDS):
        assert one.metrics["R@1"].tolist() == [1] * len(ids)
        assert latents["image"].rows[one.items].tolist() == one.rows.tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_ranks(split: PairedLatents) -> None:
    here = per_query(identity_space(), split, "image", "text", K, TWO_FOLDS)
    there = per_query(identity_space().to("cuda"), split, "image", "text", K, TWO_FOLDS)
    for one, other in zip(here, there, strict=True):
        assert one.ranks.tolist() == other.ranks.tolist()
        assert one.wrong.tolist() == other.wrong.tolist()
        assert one.scores == pytest.approx(other.scores, abs=1e-6)
