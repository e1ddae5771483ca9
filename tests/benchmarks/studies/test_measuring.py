from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusemix.benchmarks.aligners import ridge
from fusemix.benchmarks.per_query import per_query
from fusemix.benchmarks.studies.data import load_data
from fusemix.benchmarks.studies.design import Data, Job
from fusemix.benchmarks.studies.measuring import Record, fitting, measure
from fusemix.benchmarks.synthetic import SyntheticWorld, recovery
from fusemix.errors import FusemixError
from fusemix.training.fuse import fuse

from .small_study import FUSE, WORLD

EDGE = ("first", "second")
# So fast that the last step is not the best.
FAST = replace(FUSE, learning_rate=0.1, validate_every=1)
TRAINED = Job(Data(WORLD), FAST, EDGE)


@pytest.fixture(scope="module")
def record() -> Record:
    return measure(TRAINED, Path())


def test_a_run_is_measured_query_by_query_on_both_splits(record: Record) -> None:
    latents = load_data(Data(WORLD), Path())
    validated: dict[int, float] = {}

    def note(step: int, figures: object) -> None:
        assert isinstance(figures, dict)
        validated[step] = figures["mrr"]

    space = fuse(latents, replace(FAST, batch_size=60), on_validation=note)
    for split, count in (("val", 30), ("test", 40)):
        found = record.splits[split]
        assert found.items == count
        expected = per_query(space, latents.split(split), *EDGE, (1,))
        for one, name in zip(expected, ("first to second", "second to first"), strict=True):
            assert found.directions[name].items.tolist() == one.items.tolist()
            for metric in ("R@1", "MRR"):
                np.testing.assert_array_equal(found.directions[name].metrics[metric], one.metrics[metric])
    of_val = [one.metrics["MRR"].mean() for one in record.splits["val"].directions.values()]
    assert np.mean(of_val) == pytest.approx(max(validated.values()))
    training = dict(record.training)
    assert training.pop("seconds") > 0
    chosen = max(validated, key=lambda step: validated[step])
    assert chosen < 6
    assert training == {"items": 120, "batch_size": 60, "steps": 6, "chosen_step": chosen}
    told = recovery(SyntheticWorld(WORLD), space.encode)
    assert record.recovered == {name: {"shared": of.shared, "private": of.private} for name, of in told.items()}
    assert record.machine["fusemix"]


def test_a_record_goes_through_json(record: Record) -> None:
    read = Record.from_dict(json.loads(json.dumps(record.to_dict(), allow_nan=False)))
    assert read.to_dict() == record.to_dict()


def test_a_batch_is_at_most_half_of_the_items_with_mixup_and_without() -> None:
    latents = load_data(Data(WORLD), Path())
    for mixup in ("halves", "none"):
        settings = replace(FUSE, mixup=mixup)
        assert fitting(settings, latents) == replace(settings, batch_size=60)
        assert fitting(replace(settings, batch_size=7), latents).batch_size == 7


def test_the_ridge_map_is_that_of_the_aligners() -> None:
    latents = load_data(Data(WORLD), Path())
    record = measure(replace(TRAINED, method="ridge map"), Path())
    expected = per_query(ridge(latents, *EDGE), latents.split("test"), *EDGE, (1,))
    for one, direction in zip(expected, record.splits["test"].directions.values(), strict=True):
        np.testing.assert_array_equal(direction.metrics["MRR"], one.metrics["MRR"])
    assert record.training == {}


def reciprocal(scores: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[float]:
    return [1 / float(1 + (row > row[place]).sum()) for place, row in enumerate(scores)]


def test_the_ceiling_orders_by_likelihood_and_raw_latents_by_cosine() -> None:
    items = SyntheticWorld(WORLD).split("test")
    a, b = (items.seen[name].double().numpy() for name in EDGE)
    rho = 1 / (1 + WORLD.blur**2)
    variance = (1 + WORLD.blur**2) * (1 - rho**2)
    ceiling = measure(replace(TRAINED, method="ceiling"), Path())
    for direction, (query, gallery) in zip(ceiling.splits["test"].directions.values(), ((a, b), (b, a)), strict=True):
        likelihood = -((query[:, None] - rho * gallery[None]) ** 2).sum(2) / (2 * variance)
        assert direction.metrics["MRR"].tolist() == pytest.approx(reciprocal(likelihood))
    assert ceiling.recovered["first"] == {"shared": pytest.approx(1 / 1.04), "private": 0.0}

    x, y = (items.latents[name].double().numpy() for name in EDGE)
    x, y = x / np.linalg.norm(x, axis=1, keepdims=True), y / np.linalg.norm(y, axis=1, keepdims=True)
    raw = measure(replace(TRAINED, method="raw latents"), Path())
    forward, backward = raw.splits["test"].directions.values()
    assert forward.metrics["MRR"].tolist() == pytest.approx(reciprocal(x[:, :8] @ y.T))
    assert backward.metrics["R@1"].tolist() == [float(r == 1) for r in reciprocal(y @ x[:, :8].T)]


def test_a_reference_of_real_data_is_refused() -> None:
    with pytest.raises(FusemixError, match="'ceiling' is a reference for synthetic worlds only"):
        measure(Job(Data("emoji"), "ceiling", EDGE), Path())
