from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fusemix.adapters import LinearAdapter
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import DatasetStamp
from fusemix.objective import Edge
from fusemix.training.validation import Validation
from tests.fusemix.synthetic import world

EDGE = Edge("image", "text")


def random_space(latents: PairedLatents) -> JointSpace:
    torch.manual_seed(0)
    return JointSpace({name: LinearAdapter(m.values.shape[1], 4) for name, m in latents.modalities.items()})


def directions(figures: dict[str, float]) -> set[str]:
    return {name.removesuffix("/R@1") for name in figures if name.endswith("/R@1")}


def reciprocal_ranks(similarity: torch.Tensor, positive: torch.Tensor) -> list[float]:
    """Return 1 / (1 + the number of wrong answers that beat the best right one) of each row that has a right one."""
    found = []
    for scores, right in zip(similarity, positive, strict=True):
        if right.any():
            found.append(1 / (1 + int((scores[~right] > scores[right].max()).sum())))
    return found


def test_figures_equal_ranks_counted_by_hand() -> None:
    latents = world(120).split("val")
    space = random_space(latents)
    figures = Validation(latents, [EDGE])(space)
    image, text = latents["image"], latents["text"]
    positive = image.item_of_row[:, None] == text.item_of_row[None, :]
    with torch.no_grad():
        similarity = space("image", image.values[image.rows]) @ space("text", text.values[text.rows]).T
    ways = {"image-to-text": (similarity, positive), "text-to-image": (similarity.T, positive.T)}
    means = []
    for name, (scores, right) in ways.items():
        expected = reciprocal_ranks(scores, right)
        means.append(float(np.mean(expected)))
        assert figures[f"{name}/mrr"] == pytest.approx(means[-1], abs=1e-9)
        assert figures[f"{name}/R@1"] == pytest.approx(np.mean(np.array(expected) == 1), abs=1e-9)
    assert figures["mrr"] == pytest.approx(np.mean(means), abs=1e-9)
    assert figures.keys() == {"mrr", "mrr_error", "mean_cosine/image", "mean_cosine/text"} | {
        f"{name}/{metric}" for name in ways for metric in ("mrr", "R@1")
    }


def drawn_errors(figure: Callable[[np.ndarray[Any, Any]], float], items: int) -> float:
    """Return the standard deviation of a figure over many draws of items with replacement."""
    rng = np.random.default_rng(0)
    return float(np.std([figure(rng.integers(items, size=items)) for _ in range(2000)]))


def test_the_error_is_that_of_drawing_other_items() -> None:
    latents = world(400).split("val")
    space = random_space(latents)
    image, text = latents["image"], latents["text"]
    assert len(text.rows) > len(image.rows), "captions of one item stand or fall together"
    positive = image.item_of_row[:, None] == text.item_of_row[None, :]
    with torch.no_grad():
        similarity = space("image", image.values[image.rows]) @ space("text", text.values[text.rows]).T
    forward = np.array(reciprocal_ranks(similarity, positive))
    backward = np.array(reciprocal_ranks(similarity.T, positive.T))
    asked = [of.item_of_row[some.any(dim=1)] for of, some in ((image, positive), (text, positive.T))]
    rows = [[np.flatnonzero(items == item) for item in range(len(latents))] for items in asked]

    def mrr(drawn: np.ndarray[Any, Any]) -> float:
        a, b = (np.concatenate([of[item] for item in drawn]) for of in rows)
        return float(forward[a].mean() + backward[b].mean()) / 2

    error = Validation(latents, [EDGE])(space)["mrr_error"]
    assert error == pytest.approx(drawn_errors(mrr, len(latents)), rel=0.1)


def test_a_perfect_space_scores_one() -> None:
    items = [str(index) for index in range(8)]
    latents = PairedLatents.from_arrays(
        {"image": np.eye(8), "text": np.eye(8)}, {"image": items, "text": items}, dict.fromkeys(items, "val")
    )
    space = JointSpace({"image": LinearAdapter(8, 8), "text": LinearAdapter(8, 8)})
    for name in space.modalities:
        space.adapter(name).get_parameter("linear.weight").data = torch.eye(8)
    figures = Validation(latents, [EDGE])(space)
    assert {value for name, value in figures.items() if name.endswith(("mrr", "R@1"))} == {1.0}
    assert figures["mrr_error"] == 0
    assert figures["mean_cosine/image"] == figures["mean_cosine/text"] == pytest.approx(0, abs=1e-9)


def test_an_edge_that_no_item_has_is_left_out() -> None:
    latents = PairedLatents.from_arrays(
        {"image": np.eye(2), "text": np.eye(2), "audio": np.eye(2)},
        {"image": ["a", "b"], "text": ["a", "b"], "audio": ["b", "c"]},
        dict.fromkeys("abc", "val"),
    )
    edges = [EDGE, Edge("image", "audio"), Edge("text", "audio")]
    only_c = latents.split("val")
    assert len(directions(Validation(only_c, edges)(random_space(only_c)))) == 6
    apart = PairedLatents.from_arrays(
        {"image": np.eye(2), "text": np.eye(2), "audio": np.eye(2)},
        {"image": ["a", "b"], "text": ["a", "b"], "audio": ["c", "d"]},
        dict.fromkeys("abcd", "val"),
    )
    figures = Validation(apart, edges)(random_space(apart))
    assert directions(figures) == {"image-to-text", "text-to-image"}
    assert figures["mrr"] == pytest.approx((figures["image-to-text/mrr"] + figures["text-to-image/mrr"]) / 2)


def test_a_split_without_a_pair_is_refused() -> None:
    latents = PairedLatents.from_arrays(
        {"image": np.eye(1), "text": np.eye(1)}, {"image": ["a"], "text": ["b"]}, {"a": "val", "b": "val"}
    )
    with pytest.raises(FusemixError, match="no item of the validation split has two modalities"):
        Validation(latents, [EDGE])


def test_the_mean_cosine_is_that_of_all_pairs_of_rows() -> None:
    latents = world(60).split("val")
    space = random_space(latents)
    figures = Validation(latents, [EDGE])(space)
    for name in space.modalities:
        with torch.no_grad():
            rows = space(name, latents[name].values[latents[name].rows]).double()
        cosines = [float(rows[i] @ rows[j]) for i in range(len(rows)) for j in range(len(rows)) if i != j]
        assert figures[f"mean_cosine/{name}"] == pytest.approx(np.mean(cosines), abs=1e-6)


def named(latents: PairedLatents, name: str) -> PairedLatents:
    return replace(latents, dataset=DatasetStamp(name))


def test_several_datasets_are_measured_one_by_one_and_count_alike() -> None:
    toys, birds = named(world(120).split("val"), "toys"), named(world(60, seed=1).split("val"), "birds")
    space = random_space(toys)
    apart = {part.dataset.name: Validation(part, [EDGE])(space) for part in (toys, birds)}
    together = Validation([toys, birds], [EDGE])(space)
    assert together.pop("mrr") == pytest.approx((apart["toys"]["mrr"] + apart["birds"]["mrr"]) / 2)
    of_each = [apart[name]["mrr_error"] for name in ("toys", "birds")]
    assert together.pop("mrr_error") == pytest.approx((of_each[0] ** 2 + of_each[1] ** 2) ** 0.5 / 2)
    assert together == {f"{name}/{key}": value for name, figures in apart.items() for key, value in figures.items()}


def test_datasets_without_a_pair_are_left_out() -> None:
    toys = world(120).split("val")
    lonely = replace(world(60, seed=1).split("val"), dataset=DatasetStamp("lonely"))
    lonely = replace(lonely, modalities={"image": lonely["image"]})
    space = random_space(toys)
    assert Validation([toys, lonely], [EDGE])(space) == Validation(toys, [EDGE])(space)
    with pytest.raises(FusemixError, match="no item of the validation split has two modalities"):
        Validation([lonely], [EDGE])


def test_a_single_row_has_no_cosine() -> None:
    latents = PairedLatents.from_arrays(
        {"image": np.ones((1, 3)), "text": np.ones((2, 2))}, {"image": ["a"], "text": ["a", "a"]}, {"a": "val"}
    )
    assert "mean_cosine/image" not in Validation(latents, [EDGE])(random_space(latents))
