"""Results on disk: the JSON, the queries beside it, and files that are none."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from fusemix.benchmarks.results import SCHEMA_VERSION, read_json, read_retrieval, write_json, write_retrieval
from fusemix.benchmarks.retrieval import Measured, measure_pairs
from fusemix.benchmarks.retrieval_result import DirectionResult, RetrievalResult
from fusemix.benchmarks.settings import BenchmarkSettings
from fusemix.errors import FusemixError
from fusemix.latents.paired import PairedLatents

from .small_world import identity_space, small_world

SCHEMA = Path(__file__).parents[2] / "benchmarks" / "RESULTS-SCHEMA.md"


@pytest.fixture(scope="module")
def split() -> PairedLatents:
    return small_world().split("test")


@pytest.fixture(scope="module")
def measured(split: PairedLatents) -> Measured:
    return measure_pairs(identity_space(), split, [("image", "text")], BenchmarkSettings(draws=10))


def write(path: Path, measured: Measured, split: PairedLatents) -> Path:
    write_retrieval(path, measured, split, {"run": "small", "machine": {"cores": 2}})
    return path


def test_json_has_schema_version_benchmark_context_and_result(
    tmp_path: Path, measured: Measured, split: PairedLatents
) -> None:
    path = write(tmp_path / "results" / "retrieval" / "run.json", measured, split)
    read = read_json(path)
    assert list(read)[:4] == ["schema_version", "benchmark", "run", "machine"]
    assert (read["schema_version"], read["benchmark"], read["machine"]) == (SCHEMA_VERSION, "retrieval", {"cores": 2})
    interval = measured.result.directions[1].metrics["R@1"]
    assert read["directions"][1]["metrics"]["R@1"] == vars(interval)
    assert [direction["trained"] for direction in read["directions"]] == [True, True]
    assert read["protocol"]["metrics"] == ["R@1", "R@5", "R@10", "MRR"]
    assert read["mean_recall"]["value"] == measured.result.mean_recall.value


def test_queries_come_back_with_their_sources(tmp_path: Path, measured: Measured, split: PairedLatents) -> None:
    stored = read_retrieval(write(tmp_path / "run.json", measured, split))
    assert (stored.name, stored.items) == ("small", tuple(split.items))
    assert list(stored.directions) == ["image to text", "text to image"]
    for (modality, _), one, of in zip(measured.pairs, measured.directions, stored.directions.values(), strict=True):
        assert of.metrics.keys() == one.metrics.keys()
        assert all(np.array_equal(of.metrics[key], one.metrics[key]) for key in one.metrics)
        assert np.array_equal(of.ranks, one.ranks)
        assert np.array_equal(of.items, one.items)
        assert of.sources == tuple(split[modality].sources[int(row)] for row in one.rows)
        assert of.gallery == one.gallery


def test_every_field_is_in_the_schema() -> None:
    text = SCHEMA.read_text()
    assert f"Schema version {SCHEMA_VERSION}" in text
    for kind in (RetrievalResult, DirectionResult):
        assert [field.name for field in fields(kind) if f"`{field.name}`" not in text] == []


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, "retrieval", {"items": 1}, {})
    with pytest.raises(TypeError):
        write_json(path, "retrieval", {"items": object()}, {})
    assert json.loads(path.read_text())["items"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f'{{"schema_version": {SCHEMA_VERSION + 1}}}', "has results schema 3; this fusemix reads 2: pip install -U"),
        ('{"schema_version": 1}', "has results schema 1, before 2: measure it again with fusemix benchmark"),
        ('{"items": 3}', "is no result of fusemix"),
        ("[1]", "is no result of fusemix"),
        ("{", "is no result of fusemix"),
        (
            f'{{"schema_version": {SCHEMA_VERSION}, "benchmark": "cka"}}',
            "is a result of 'cka': only those of retrieval",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(FusemixError) as refused:
        read_retrieval(path)
    assert str(refused.value).startswith(f"{path} {message}")
    assert "\n" not in str(refused.value)


def test_queries_that_are_gone_or_of_another_measurement_are_one_line(
    tmp_path: Path, measured: Measured, split: PairedLatents
) -> None:
    path = write(tmp_path / "run.json", measured, split)
    other = write(tmp_path / "other.json", measured, split.at(split["image"].item_of_row.unique()))
    (tmp_path / "run.npz").write_bytes(other.with_suffix(".npz").read_bytes())
    with pytest.raises(FusemixError, match=r"run.npz does not belong to run.json: measure again"):
        read_retrieval(path)
    (tmp_path / "run.npz").unlink()
    with pytest.raises(FusemixError, match=r"the queries of .*run.json cannot be read from"):
        read_retrieval(path)
