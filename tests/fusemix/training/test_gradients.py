from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from fusemix.adapters import Adapter, AdapterSettings, build_adapter
from fusemix.batch import LatentBatch
from fusemix.joint_space import JointSpace
from fusemix.objective import Edge, Objective
from fusemix.randomness import derive_seed
from fusemix.training.gradients import Outcome, backpropagate

DIMS = {"audio": 5, "image": 7, "text": 6}
SIZE, DIM, SEED = 23, 4, 11
NOISY = AdapterSettings(expansion=2, dropout=0.6, noise=0.3)
OBJECTIVES = {
    "info_nce": Objective((Edge("image", "text"),)),
    "triangle": Objective(
        (Edge("image", "text", 2.0, "own"), Edge("text", "audio"), Edge("image", "audio", 0.5, 0.05))
    ),
    "sigmoid": Objective((Edge("image", "text", loss="sigmoid"), Edge("audio", "text"))),
}


def make_space(objective: Objective, adapter: AdapterSettings, **kinds: AdapterSettings) -> JointSpace:
    torch.manual_seed(0)
    adapters: dict[str, Adapter] = {
        name: build_adapter(kinds.get(name, adapter).config(DIMS[name], DIM)) for name in objective.modalities
    }
    temperatures = dict.fromkeys(objective.temperatures, 0.2)
    return JointSpace(adapters, temperatures, biases=dict.fromkeys(objective.biases, -2.0))


def make_batch(objective: Objective, missing: float, size: int = SIZE) -> LatentBatch:
    rng = torch.Generator().manual_seed(3)
    names = objective.modalities
    present = {name: torch.rand(size, generator=rng) >= missing for name in names}
    values = {name: torch.randn(size, DIMS[name], generator=rng) * present[name][:, None] for name in names}
    content = {name: torch.randint(2 * size, (size, 2), generator=rng) for name in names}
    return LatentBatch(values, present, torch.arange(size)[:, None], content)


def backward(space: JointSpace, objective: Objective, batch: LatentBatch, **options: Any) -> Outcome:
    space.zero_grad()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return backpropagate(space, objective, batch, scaler, **{"seed": SEED, **options})


def gradients(space: JointSpace) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in space.named_parameters() if weight.grad is not None}


def plain_graph(space: JointSpace, objective: Objective, batch: LatentBatch, size: int) -> tuple[Tensor, Tensor]:
    """Return loss and image embeddings of one graph over the slices, and leave its gradients with the weights."""
    space.zero_grad()
    embeddings = {}
    for name in objective.modalities:
        has = [position for position in range(len(batch)) if batch.present[name][position]]
        nothing = batch.values[name].new_zeros(DIM)
        rows = [nothing] * len(batch)
        for number, start in enumerate(range(0, len(has), size)):
            torch.manual_seed(derive_seed(SEED, name, number))
            some = has[start : start + size]
            for position, embedding in zip(some, space(name, batch.values[name][some]), strict=True):
                rows[position] = embedding
        embeddings[name] = torch.stack(rows)
    loss, _ = objective(embeddings, batch, space)
    loss.backward()
    return loss.detach(), embeddings["image"].detach()


@pytest.fixture(autouse=True)
def keep_generator() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


@pytest.mark.parametrize("size", [1, 4, 8, 22, SIZE, 100])
@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_passes_give_the_gradients_of_one_graph_over_the_same_slices(
    name: str, missing: float, size: int
) -> None:
    objective = OBJECTIVES[name]
    space, batch = (
        make_space(objective, NOISY, audio=AdapterSettings("gated", 1, 2, 0.6)),
        make_batch(objective, missing),
    )
    outcome = backward(space, objective, batch, micro_batch=size)
    found = gradients(space)
    loss, image = plain_graph(space, objective, batch, size)
    expected = gradients(space)
    torch.testing.assert_close(outcome.loss, loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(outcome.embeddings["image"], image)
    assert found.keys() == expected.keys() == dict(space.named_parameters()).keys()
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-5, atol=1e-5, msg=parameter)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_without_dropout_slices_give_the_gradients_of_the_whole_batch(name: str) -> None:
    objective = OBJECTIVES[name]
    space, batch = make_space(objective, AdapterSettings(dropout=0.0)), make_batch(objective, 0.3)
    whole = backward(space, objective, batch)
    expected = gradients(space)
    sliced = backward(space, objective, batch, micro_batch=5)
    torch.testing.assert_close(sliced.loss, whole.loss)
    torch.testing.assert_close(dict(sliced.edges), dict(whole.edges))
    torch.testing.assert_close(gradients(space), expected, rtol=1e-5, atol=1e-5)


def test_gradients_add_up() -> None:
    objective = OBJECTIVES["triangle"]
    space, batch = make_space(objective, NOISY), make_batch(objective, 0.3)
    backward(space, objective, batch, micro_batch=7)
    once = gradients(space)
    backpropagate(space, objective, batch, torch.amp.GradScaler("cpu", enabled=False), seed=SEED, micro_batch=7)
    torch.testing.assert_close(gradients(space), {name: 2 * gradient for name, gradient in once.items()})


@pytest.mark.parametrize("size", [None, 6])
def test_a_scaler_scales_the_gradients_and_not_the_loss(size: int | None) -> None:
    objective = OBJECTIVES["sigmoid"]
    space, batch = make_space(objective, NOISY), make_batch(objective, 0.3)
    plain = backward(space, objective, batch, micro_batch=size)
    expected = gradients(space)
    space.zero_grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled = backpropagate(space, objective, batch, scaler, seed=SEED, micro_batch=size)
    assert torch.equal(scaled.loss, plain.loss)
    torch.testing.assert_close(gradients(space), {name: 1024 * gradient for name, gradient in expected.items()})


@pytest.mark.parametrize("size", [None, 6])
def test_the_seed_decides_dropout_and_torchs_own_generator_nothing(size: int | None) -> None:
    objective = OBJECTIVES["info_nce"]
    space, batch = make_space(objective, NOISY), make_batch(objective, 0.0)
    first = backward(space, objective, batch, micro_batch=size)
    before = torch.random.get_rng_state()
    torch.manual_seed(99)
    moved = torch.random.get_rng_state()
    again = backward(space, objective, batch, micro_batch=size)
    assert torch.equal(torch.random.get_rng_state(), moved)
    assert not torch.equal(before, moved)
    assert torch.equal(first.loss, again.loss)
    assert not torch.equal(first.loss, backward(space, objective, batch, micro_batch=size, seed=SEED + 1).loss)


def test_leaving_a_modality_out_does_not_change_the_dropout_of_the_others() -> None:
    triangle, edge = OBJECTIVES["triangle"], OBJECTIVES["info_nce"]
    batch = make_batch(triangle, 0.3)
    three = make_space(triangle, NOISY)
    two = JointSpace({name: three.adapter(name) for name in edge.modalities}, {"shared": 0.2})
    outcomes = backward(three, triangle, batch), backward(two, edge, batch)
    for name in edge.modalities:
        assert torch.equal(outcomes[0].embeddings[name], outcomes[1].embeddings[name])


def test_slices_have_dropout_of_their_own() -> None:
    objective = OBJECTIVES["info_nce"]
    space, batch = make_space(objective, NOISY), make_batch(objective, 0.0, 8)
    for values in batch.values.values():
        values[:] = values[0]
    image = backward(space, objective, batch, micro_batch=2).embeddings["image"]
    assert len(image.unique(dim=0)) == 8


@pytest.mark.parametrize("size", [None, 4])
def test_an_identity_adapter_takes_no_gradients_and_the_others_theirs(size: int | None) -> None:
    objective = OBJECTIVES["info_nce"]
    space = JointSpace(
        {
            "image": build_adapter(AdapterSettings("identity").config(7, 7)),
            "text": build_adapter(NOISY.config(6, 7)),
        },
        {"shared": 0.2},
    )
    backward(space, objective, make_batch(objective, 0.3), micro_batch=size)
    assert gradients(space).keys() == dict(space.named_parameters()).keys()


@pytest.mark.parametrize("size", [None, 4])
def test_a_modality_that_no_item_has_gets_gradients_of_zero(size: int | None) -> None:
    objective = OBJECTIVES["triangle"]
    space, batch = make_space(objective, NOISY), make_batch(objective, 0.0)
    batch.present["audio"][:] = False
    backward(space, objective, batch, micro_batch=size)
    found = gradients(space)
    assert found.keys() == dict(space.named_parameters()).keys()
    for name, gradient in found.items():
        assert bool(gradient.any()) == ("audio" not in name and name != "log_scales.shared"), name


def test_what_an_absent_item_holds_is_never_looked_at() -> None:
    objective = OBJECTIVES["triangle"]
    space, batch = make_space(objective, NOISY), make_batch(objective, 0.4)
    clean = backward(space, objective, batch, micro_batch=6)
    expected = gradients(space)
    for name, values in batch.values.items():
        values[~batch.present[name]] = math.nan
    assert torch.equal(backward(space, objective, batch, micro_batch=6).loss, clean.loss)
    torch.testing.assert_close(gradients(space), expected, rtol=0, atol=0)


class LiveBytes:
    """Counts the bytes that autograd holds for backward passes, and their peak."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def pack(self, tensor: Tensor) -> _Held:
        return _Held(self, tensor)

    @staticmethod
    def unpack(held: _Held) -> Tensor:
        return held.tensor


class _Held:
    def __init__(self, live: LiveBytes, tensor: Tensor) -> None:
        self.live, self.tensor = live, tensor
        live.now += tensor.numel() * tensor.element_size()
        live.peak = max(live.peak, live.now)

    def __del__(self) -> None:
        self.live.now -= self.tensor.numel() * self.tensor.element_size()


def peaks(sizes: Sequence[int], micro_batch: int | None) -> Mapping[int, int]:
    objective = OBJECTIVES["info_nce"]
    space = make_space(objective, AdapterSettings(depth=2, expansion=16))
    found = {}
    for size in sizes:
        live = LiveBytes()
        with torch.autograd.graph.saved_tensors_hooks(live.pack, live.unpack):
            backward(space, objective, make_batch(objective, 0.0, size), micro_batch=micro_batch)
        assert live.now == 0
        found[size] = live.peak
    return found


def test_activations_do_not_grow_with_a_batch_that_is_cut_into_slices() -> None:
    small, large = peaks([64, 512], 32).values()
    # Loss and embeddings are all that grows: a few numbers an item, where the activations of one are hundreds.
    assert large - small < (512 - 64) * 4 * (4 * DIM + 8)
    whole = peaks([64, 512], None)
    assert whole[512] > 6 * whole[64] > 6 * small
    assert whole[512] > 10 * large


def test_autocast_reaches_the_adapters_and_not_the_loss() -> None:
    objective = OBJECTIVES["triangle"]
    space, batch = make_space(objective, AdapterSettings(dropout=0.0)), make_batch(objective, 0.3)
    exact = backward(space, objective, batch)
    expected = gradients(space)
    for size in (None, 5):
        rough = backward(space, objective, batch, dtype=torch.bfloat16, micro_batch=size)
        assert rough.loss.dtype == rough.embeddings["image"].dtype == torch.float32
        assert 0 < float((rough.embeddings["image"] - exact.embeddings["image"]).abs().max()) < 0.05
        for name, gradient in gradients(space).items():
            assert gradient.dtype == torch.float32
            torch.testing.assert_close(gradient, expected[name], rtol=0.2, atol=0.05, msg=name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("size", [5, 100])
def test_both_passes_draw_the_same_dropout_on_a_gpu(size: int) -> None:
    objective = OBJECTIVES["triangle"]
    space, batch = make_space(objective, NOISY).cuda(), make_batch(objective, 0.3).to(torch.device("cuda"))
    scaler = torch.amp.GradScaler("cuda", enabled=False)
    outcome = backpropagate(space, objective, batch, scaler, seed=SEED, micro_batch=size)
    found = gradients(space)
    loss, image = plain_graph(space, objective, batch, size)
    torch.testing.assert_close(outcome.loss, loss)
    torch.testing.assert_close(outcome.embeddings["image"], image)
    torch.testing.assert_close(found, gradients(space), rtol=1e-4, atol=1e-5)
