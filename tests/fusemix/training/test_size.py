from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fusemix.adapters import AdapterSettings, IdentityAdapter, LinearAdapter, MLPAdapter, build_adapter
from fusemix.adapters.adapter import Adapter
from fusemix.batch import LatentBatch
from fusemix.edge import Edge
from fusemix.joint_space import JointSpace
from fusemix.losses.tiles import TILE
from fusemix.objective import Objective
from fusemix.training.settings import FuseSettings
from fusemix.training.size import StepSize, step_size

PAIRS, DIMS, JOINT_DIM = 20, {"image": 10, "text": 6, "audio": 7}, 10
KINDS = {
    "mlp": AdapterSettings(depth=2, expansion=3),
    "shallow": AdapterSettings(depth=0),
    "gated": AdapterSettings(kind="gated", depth=2, expansion=3),
    "linear": AdapterSettings(kind="linear", noise=0.1),
    "narrowed": AdapterSettings(depth=2, expansion=3, max_width=5),
    "narrowed, shallow": AdapterSettings(depth=0, max_width=5),
}
ONE_EDGE = Objective((Edge("image", "text"),))


def counted(work: Callable[[], object]) -> int:
    """Return the FLOPs of the matrix products in some work, as torch's own counter sees them."""

    def in_place(into: Any, a: Any, b: Any, **_: Any) -> int:
        return 2 * int(a[0]) * int(a[1]) * int(b[1])

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place}) as counter:
        work()
    return int(counter.get_total_flops())


def space_of(adapters: Mapping[str, Adapter]) -> JointSpace:
    return JointSpace(adapters, {"shared": 0.07}, None, {"image-text": -10.0})


def make_space(image: Adapter, text: AdapterSettings) -> JointSpace:
    return space_of({"image": image, "text": build_adapter(text.config(DIMS["text"], JOINT_DIM))}).train()


def run_adapters(space: JointSpace, pairs: int, micro_batch: int | None) -> None:
    """Run forward and backward passes over random latents, with micro-batches as GradCache does."""
    for name in space.modalities:
        adapter = space.adapter(name)
        latents = torch.randn(pairs, adapter.input_dim, device=adapter.mean.device)
        parts = latents.split(micro_batch or pairs)
        if micro_batch:
            with torch.no_grad():
                for part in parts:
                    adapter(part)
        for part in parts:
            vectors = adapter(part)
            if vectors.requires_grad:
                vectors.sum().backward()


@pytest.mark.parametrize("micro_batch", [None, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_take_the_flops_that_a_real_step_takes(kind: str, micro_batch: int | None) -> None:
    other = build_adapter(KINDS[kind].config(DIMS["image"], JOINT_DIM))
    for image in (IdentityAdapter(10, 10), other):
        space = make_space(image, KINDS[kind])
        size = step_size(space, ONE_EDGE, FuseSettings(batch_size=PAIRS, micro_batch=micro_batch))
        assert size.adapter_flops == counted(lambda: run_adapters(space, PAIRS, micro_batch)) > 0  # noqa: B023


def test_a_micro_batch_that_holds_the_whole_batch_takes_no_second_pass() -> None:
    space = make_space(IdentityAdapter(10, 10), KINDS["mlp"])
    whole = step_size(space, ONE_EDGE, FuseSettings(batch_size=PAIRS))
    assert step_size(space, ONE_EDGE, FuseSettings(batch_size=PAIRS, micro_batch=PAIRS)) == whole
    halved = step_size(space, ONE_EDGE, FuseSettings(batch_size=PAIRS, micro_batch=PAIRS - 1))
    assert halved.adapter_flops == whole.adapter_flops * 4 // 3
    assert halved.loss_flops == whole.loss_flops
    assert "(two forward passes, for micro-batches)" in str(halved)


@pytest.mark.parametrize("loss", ["info_nce", "sigmoid"])
def test_the_loss_takes_the_flops_of_its_tiles(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TILE, "cpu", 8)
    objective = Objective((Edge("image", "text", loss=loss), Edge("text", "audio")))
    space = space_of({name: LinearAdapter(dim, JOINT_DIM) for name, dim in DIMS.items()})
    batch = LatentBatch(
        {name: torch.randn(PAIRS, dim) for name, dim in DIMS.items()},
        {name: torch.ones(PAIRS, dtype=torch.bool) for name in DIMS},
        torch.arange(PAIRS)[:, None],
        {name: torch.arange(PAIRS)[:, None] for name in DIMS},
    )
    embeddings = {name: space(name, values).detach().requires_grad_() for name, values in batch.values.items()}
    of_loss = counted(lambda: objective(embeddings, batch, space)[0].backward())
    assert step_size(space, objective, FuseSettings(batch_size=PAIRS)).loss_flops == of_loss


def test_parameters_are_counted_for_each_adapter_and_with_temperatures_and_biases() -> None:
    space = make_space(IdentityAdapter(10, 10), KINDS["gated"])
    size = step_size(space, ONE_EDGE, FuseSettings(batch_size=PAIRS))
    block = (6 + 6) + (6 * 36 + 36) + (18 * 6 + 6)
    assert size.adapter_parameters == {"image": 0, "text": 2 * block + (6 + 6) + (6 * 10 + 10)}
    assert size.parameters == size.adapter_parameters["text"] + 2


def test_the_official_adapters_cost_what_the_paper_and_its_release_imply() -> None:
    settings = FuseSettings(batch_size=20480, adapter=AdapterSettings(depth=4))
    with torch.device("meta"):
        adapters = {name: MLPAdapter(dim, 512, depth=4) for name, dim in (("image", 1536), ("text", 1024))}
        space = space_of(adapters).train()
        size = step_size(space, ONE_EDGE, settings)
        assert size.adapter_flops == counted(lambda: run_adapters(space, 20480, None))
    assert size.parameters == pytest.approx(110e6, rel=0.01)
    assert size.adapter_flops == pytest.approx(13.6e12, rel=0.005)
    assert size.loss_flops == pytest.approx(1.72e12, rel=0.005)
    assert str(size) == (
        "2 adapters, 110.4M parameters (image 76.3M, text 34.1M); 13.6 TFLOP a step in the adapters, 1.7 TFLOP in the"
        " loss"
    )


def test_small_numbers_are_written_out() -> None:
    assert str(StepSize(1234, {"image": 999, "text": 0}, 999_000, 800, 1)) == (
        "2 adapters, 1.2K parameters (image 999, text 0); 999.0 KFLOP a step in the adapters, 800 FLOP in the loss"
    )
