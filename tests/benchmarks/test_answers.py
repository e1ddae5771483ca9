"""Lines about queries: what is right, what came closest, and where there is nothing wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fusemix.benchmarks.answers import answers, write_answers
from fusemix.benchmarks.retrieval import Measured, measure_pairs
from fusemix.benchmarks.settings import BenchmarkSettings
from fusemix.latents.paired import PairedLatents

from .small_world import identity_space, small_world

NAMES = ("a", "b", "c")


def measured(latents: PairedLatents, protocol: str = "") -> Measured:
    settings = BenchmarkSettings(draws=5, protocol=protocol)
    return measure_pairs(identity_space(3), latents, [("image", "text")], settings)


def three() -> PairedLatents:
    """Return three items of a picture and a caption each; that of b lies closer to the picture of a than its own."""
    pictures = np.eye(3, dtype=np.float32)
    captions = np.array([[0.6, 0.0, 0.8], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]], np.float32)
    sources = {name: [f"{item} {name}" for item in NAMES] for name in ("image", "text")}
    return PairedLatents.from_arrays(
        {"image": pictures, "text": captions},
        {"image": NAMES, "text": NAMES},
        dict.fromkeys(NAMES, "test"),
        sources=sources,
    )


def test_a_query_is_told_with_its_right_answer_and_the_wrong_one_that_came_closest() -> None:
    [first, *_] = answers(measured(three()), three())
    assert first == {
        "dataset": "arrays",
        "direction": "image to text",
        "item": "a",
        "source": "a image",
        "rank": 2.0,
        "tied": 0,
        "right": {"item": "a", "source": "a text", "score": pytest.approx(0.6)},
        "wrong": {"item": "b", "source": "b text", "score": pytest.approx(0.8)},
    }


def test_a_query_that_every_answer_is_right_for_has_no_wrong_one() -> None:
    alone = three().at(three()["image"].rows[:1])
    assert [line["wrong"] for line in answers(measured(alone), alone)] == [None, None]


def test_queries_of_folds_say_which(tmp_path: Path) -> None:
    split = small_world(test=60).split("test")
    found = measure_pairs(
        identity_space(), split, [("image", "text")], BenchmarkSettings(draws=5, protocol="coco-1k")
    )
    count = write_answers(tmp_path / "queries.jsonl", [(found, split)])
    lines = [json.loads(line) for line in (tmp_path / "queries.jsonl").read_text().splitlines()]
    assert count == len(lines) == sum(one.queries for one in found.result.directions)
    assert {line["fold"] for line in lines} == set(range(5))
