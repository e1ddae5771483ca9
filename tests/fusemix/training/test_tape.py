"""What autograd is said to keep is what it keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fusemix.adapters import AdapterSettings, build_adapter
from fusemix.joint_space import JointSpace
from fusemix.training.tape import tape
from tests.fusemix.training.live_memory import dropout_of_a_gpu

DIM, JOINT_DIM, ITEMS = 48, 20, 8000
KINDS = {
    "mlp": AdapterSettings(depth=3, expansion=3),
    "without dropout": AdapterSettings(depth=2, dropout=0.0),
    "noisy": AdapterSettings(depth=1, noise=0.2),
    "of depth 0": AdapterSettings(depth=0),
    "gated": AdapterSettings("gated", depth=2, expansion=2),
    "gated without dropout": AdapterSettings("gated", depth=1, dropout=0.0),
    "linear": AdapterSettings("linear"),
    "narrowed": AdapterSettings(depth=2, max_width=32),
    "narrowed, gated": AdapterSettings("gated", depth=1, max_width=32),
    "narrowed, of depth 0": AdapterSettings(depth=0, max_width=32),
}


def saved_bytes(shape: AdapterSettings, dtype: torch.dtype) -> int:
    """Return the bytes of all that autograd saves in a forward pass, parameters apart."""
    space = JointSpace({"x": build_adapter(shape.config(DIM, JOINT_DIM))}).train()
    parameters = {weight.untyped_storage().data_ptr() for weight in space.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Any:
        # Kept as a tensor, so that no other is given its place in memory.
        if tensor.untyped_storage().data_ptr() not in parameters:
            saved[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
    ):
        space("x", torch.randn(ITEMS, DIM))
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fused", [False, True], ids=["a mask of numbers", "a mask of bytes"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_tape_is_what_autograd_saves(
    monkeypatch: pytest.MonkeyPatch, kind: str, fused: bool, dtype: torch.dtype
) -> None:
    if fused:
        monkeypatch.setattr(torch.nn.functional, "dropout", dropout_of_a_gpu)
    stages = tape(KINDS[kind], DIM, JOINT_DIM, size=dtype.itemsize, fused_dropout=fused)
    predicted = ITEMS * sum(stage.kept for stage in stages)
    if dtype != torch.float32:
        predicted += dtype.itemsize * sum(stage.weights for stage in stages)
    assert predicted == pytest.approx(saved_bytes(KINDS[kind], dtype), rel=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_are_those_of_the_adapter(kind: str) -> None:
    adapter = build_adapter(KINDS[kind].config(DIM, JOINT_DIM))
    stages = tape(KINDS[kind], DIM, JOINT_DIM, size=4, fused_dropout=True)
    assert sum(stage.weights for stage in stages) == sum(weight.numel() for weight in adapter.parameters())


def test_an_identity_adapter_keeps_nothing() -> None:
    [stage] = tape(AdapterSettings("identity"), DIM, DIM, size=4, fused_dropout=True)
    assert stage.kept == stage.weights == stage.backward == 0


def test_only_what_is_narrowed_wants_a_gradient_of_the_first_layer_norm() -> None:
    narrow, norm, _ = tape(AdapterSettings(depth=0, max_width=32), DIM, JOINT_DIM, size=4, fused_dropout=True)
    plain, _ = tape(AdapterSettings(depth=0), 32, JOINT_DIM, size=4, fused_dropout=True)
    assert norm == replace(plain, later=plain.later + 4 * 32)
    assert narrow.last_weights == narrow.weights == DIM * 32 + 32
