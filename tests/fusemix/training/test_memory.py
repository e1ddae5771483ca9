from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from fusemix.adapters import AdapterSettings
from fusemix.edge import Edge
from fusemix.latents.paired import PairedLatents
from fusemix.losses import tiles
from fusemix.objective import Objective
from fusemix.training import memory
from fusemix.training.feeding import Feeder
from fusemix.training.learner import Learner
from fusemix.training.memory import MemoryPlan, TrainingShape, advice, largest_batch, predicted_memory
from fusemix.training.settings import FuseSettings
from fusemix.training.space import fresh_space
from tests.fusemix.training.live_memory import LiveMemory, dropout_of_a_gpu

PAIR, TRIANGLE = {"image": 96, "text": 64}, {"audio": 48, "image": 96, "text": 64}
OFFICIAL = {"image": 1536, "text": 1024}


def settings(**changes: object) -> FuseSettings:
    fields = {"batch_size": 600, "joint_dim": 32, "adapter": AdapterSettings(depth=2), **changes}
    return FuseSettings(**fields)  # type: ignore[arg-type]


def shape_of(dims: Mapping[str, int], given: FuseSettings, device: str = "cpu") -> TrainingShape:
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(given.precision, torch.float32)
    edges = given.edges_between(dims)
    return TrainingShape(given, dims, edges, device, dtype, sent_ahead=False, validation_rows=0)


def random_latents(dims: Mapping[str, int], items: int) -> PairedLatents:
    ids, rng = [f"{item:06}" for item in range(items)], np.random.default_rng(0)
    latents = {name: rng.standard_normal((items, dim)).astype(np.float16) for name, dim in dims.items()}
    # Two captions that are equal, so that there is something to leave out.
    captions = ["", "", *ids[2:]]
    return PairedLatents.from_arrays(
        latents, dict.fromkeys(dims, ids), dict.fromkeys(ids, "train"), sources=dict.fromkeys(dims, captions)
    )


def live_peak(dims: Mapping[str, int], given: FuseSettings) -> int:
    """Return the most that tensors take in three steps, with the parameters."""
    latents = random_latents(dims, 2 * given.batch_size)
    objective = Objective(given.edges_between(dims))
    feeder = Feeder([latents], given, torch.device("cpu"))
    space = fresh_space([latents], given, objective)
    dtype = torch.bfloat16 if given.precision == "bfloat16" else torch.float32
    learner = Learner(space, objective, given, dtype, feeder.item_ids)
    own = [*space.parameters(), *space.buffers()]
    with LiveMemory([*own, *(modality.values for modality in latents.modalities.values())]) as live:
        for step, feed in enumerate(feeder.steps(0, 3)):
            learner.step(step, feed)
    return int(live.peak) + sum(int(tensor.untyped_storage().nbytes()) for tensor in own)


CASES = {
    "one pass": (PAIR, settings()),
    "slices": (PAIR, settings(micro_batch=100)),
    "a triangle": (TRIANGLE, settings(adapter=AdapterSettings(depth=1, expansion=2))),
    "a triangle in slices": (TRIANGLE, settings(micro_batch=150)),
    "bfloat16": (PAIR, settings(precision="bfloat16")),
    "bfloat16 in slices": (PAIR, settings(precision="bfloat16", micro_batch=200)),
    "gated": (PAIR, settings(adapter=AdapterSettings("gated", depth=1))),
    "wide embeddings in slices": (PAIR, settings(joint_dim=256, micro_batch=200, adapter=AdapterSettings(depth=0))),
    "gated, without dropout": (PAIR, settings(adapter=AdapterSettings("gated", depth=1, dropout=0.0))),
    "gated, in slices, without dropout": (
        PAIR,
        settings(adapter=AdapterSettings("gated", depth=1, dropout=0.0), micro_batch=128),
    ),
    "noise, no mixup": (PAIR, settings(adapter=AdapterSettings(depth=1, noise=0.1), mixup="none")),
    "no block": (PAIR, settings(batch_size=1000, adapter=AdapterSettings(depth=0), mixup="shift")),
    "linear": (TRIANGLE, settings(batch_size=1100, adapter=AdapterSettings("linear"))),
    "narrowed": (PAIR, settings(adapter=AdapterSettings(depth=1, expansion=2, max_width=70))),
    "narrowed, no block": (
        {"image": 96, "text": 96},
        settings(batch_size=1000, adapter=AdapterSettings(depth=0, max_width=90), joint_dim=8),
    ),
    "narrowed, bfloat16": (
        PAIR,
        settings(adapter=AdapterSettings("gated", depth=1, max_width=70), precision="bfloat16", micro_batch=200),
    ),
    "weights alone": (PAIR, settings(batch_size=8, adapter=AdapterSettings(depth=3))),
    "latents alone": ({"image": 900, "text": 700}, settings(adapter=AdapterSettings("linear"), joint_dim=4)),
    "a locked tower": (
        {"image": 32, "text": 64},
        settings(adapters={"image": AdapterSettings("identity")}, batch_size=1000),
    ),
    "sigmoid": (PAIR, settings(edges=(Edge("image", "text", loss="sigmoid"),))),
    "a star": (TRIANGLE, settings(anchor="text", batch_size=900)),
}


# With small tiles it is the adapters or the batch that take most, not the loss.
@pytest.mark.parametrize(("case", "tile"), [*((case, 200) for case in CASES), ("one pass", 1024), ("linear", 1024)])
def test_the_prediction_is_what_tensors_take(monkeypatch: pytest.MonkeyPatch, case: str, tile: int) -> None:
    monkeypatch.setitem(tiles.TILE, "cpu", tile)
    dims, given = CASES[case]
    predicted = predicted_memory(shape_of(dims, given))
    assert predicted.total == pytest.approx(live_peak(dims, given), rel=0.02), str(predicted)


@pytest.mark.parametrize("micro_batch", [None, 128])
def test_the_prediction_for_a_gpu_is_what_its_kernels_keep(
    monkeypatch: pytest.MonkeyPatch, micro_batch: int | None
) -> None:
    # Its dropout keeps a byte an entry, which the CPU can do too, and its tiles are larger.
    monkeypatch.setattr(torch.nn.functional, "dropout", dropout_of_a_gpu)
    monkeypatch.setitem(tiles.TILE, "cpu", 500)
    monkeypatch.setitem(tiles.TILE, "cuda", 500)
    monkeypatch.setitem(memory.WORKSPACE, "cuda", 0)
    given = settings(precision="bfloat16", micro_batch=micro_batch)
    predicted = predicted_memory(shape_of(PAIR, given, "cuda"))
    assert predicted.total == pytest.approx(live_peak(PAIR, given), rel=0.03), str(predicted)


def test_a_plan_tells_its_parts() -> None:
    plan = MemoryPlan("at noon", {"small": 10, "large": 3_000_000_000, "medium": 900_000_000})
    assert plan.total == 3_900_000_010
    assert str(plan) == "3.9 GB at its peak, at noon (large 3.0 GB, medium 900 MB)"


def test_the_latents_of_the_next_step_are_sent_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = shape_of(OFFICIAL, settings(batch_size=1000), "cuda")
    more = predicted_memory(replace(shape, sent_ahead=True)).total - predicted_memory(shape).total
    assert more == 2000 * (1536 + 1024) * 2
    # While a batch is put together, what it is made from is there as well; with small tiles that is the peak.
    monkeypatch.setitem(tiles.TILE, "cuda", 64)
    large = shape_of(
        OFFICIAL, settings(batch_size=100_000, micro_batch=16, adapter=AdapterSettings("linear")), "cuda"
    )
    both = predicted_memory(replace(large, sent_ahead=True))
    assert both.moment == "as a batch is put together"
    assert both.total - predicted_memory(large).total == 2 * 200_000 * (1536 + 1024) * 2
    assert predicted_memory(replace(shape, latents=12345)).total - predicted_memory(shape).total == 12345


def test_latents_that_are_there_already_take_nothing_of_what_is_free() -> None:
    shape = shape_of(PAIR, settings())
    needed = predicted_memory(shape).total
    for latents in (0, 10**10):
        there = replace(shape, latents=latents)
        assert "free" not in advice(there, int(needed / 0.74), "in memory")
        assert "free" in advice(there, int(needed / 0.76), "in memory")


def test_a_validation_may_take_most() -> None:
    shape = shape_of(OFFICIAL, settings(batch_size=100, adapter=AdapterSettings(depth=1)), "cuda")
    plan = predicted_memory(replace(shape, validation_rows=10_000))
    # The latents as they are stored and as float32, its standardised form, and a hidden layer before and after gelu.
    assert plan.parts["activations"] == 10_000 * ((2 + 4 + 4) * 1536 + 2 * 4 * 4 * 1536)
    assert plan.moment == "in a validation"
    # Of more rows, as many go through at once, and the embeddings of the first modality stay.
    many, more = (predicted_memory(replace(shape, validation_rows=rows)).total for rows in (10**7, 2 * 10**7))
    assert more - many == 10**7 * 32 * 4


def test_activations_in_slices_do_not_grow_with_the_batch() -> None:
    small, large = (
        shape_of(OFFICIAL, settings(batch_size=size, micro_batch=1024, joint_dim=512), "cuda")
        for size in (1 << 15, 1 << 16)
    )
    activations = [max(_peak_of(shape, "activations"), 0) for shape in (small, large)]
    assert activations[0] == activations[1]


def _peak_of(shape: TrainingShape, part: str) -> int:
    step = memory._Step(shape)
    step.forward("image", shape.at_once, again=True)
    return step.held[part]


@pytest.mark.parametrize("micro_batch", [None, 256])
@pytest.mark.parametrize("room", [10**8, 3 * 10**9, 16 * 10**9])
def test_the_largest_batch_is_the_last_that_fits(micro_batch: int | None, room: int) -> None:
    given = settings(micro_batch=micro_batch, adapter=AdapterSettings(depth=1), joint_dim=512)
    shape = shape_of(OFFICIAL, given, "cuda")
    largest = largest_batch(room, shape)

    def taken(size: int) -> int:
        return predicted_memory(replace(shape, settings=replace(given, batch_size=size))).total

    assert taken(largest + 1) > room
    assert taken(max(largest, 1)) <= room or largest == 0
    assert (largest == 0) == (room == 10**8)


def test_advice_for_what_fits_is_the_prediction() -> None:
    shape = shape_of(PAIR, settings())
    told = advice(shape, 10**12, "in memory")
    assert told == f"memory: a step will take {predicted_memory(shape)}"


def test_advice_for_what_does_not_fit_names_settings_that_do() -> None:
    shape = shape_of(OFFICIAL, settings(batch_size=20480, adapter=AdapterSettings(depth=4), joint_dim=512), "cuda")
    told = advice(shape, 8 * 10**9, "on cuda")
    found = re.search(
        r"; that may be more than the 8\.0 GB that are free on cuda: set fuse\.micro_batch to (\d+) or"
        r" fuse\.batch_size to at most (\d+)$",
        told,
    )
    assert found is not None, told
    slices, batch = (int(number) for number in found.groups())
    for changes in ({"micro_batch": slices}, {"batch_size": batch}):
        changed = replace(shape, settings=replace(shape.settings, **changes))  # type: ignore[arg-type]
        assert predicted_memory(changed).total <= 0.9 * 8 * 10**9
    twice = replace(shape, settings=replace(shape.settings, micro_batch=2 * slices))
    assert predicted_memory(twice).total > 0.9 * 8 * 10**9


def test_advice_where_nothing_fits_is_a_smaller_adapter() -> None:
    shape = shape_of(OFFICIAL, settings(adapter=AdapterSettings(depth=4)), "cuda")
    assert advice(shape, 10**9, "on cuda").endswith("free on cuda: make fuse.adapter smaller")
