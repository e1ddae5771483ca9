from __future__ import annotations

import pytest
import torch

from fusemix.adapters.affine import AffineAdapter
from fusemix.batch import LatentBatch
from fusemix.joint_space import JointSpace
from fusemix.losses import info_nce
from fusemix.objective import Edge, Objective

SIZE = 12
NAMES = ("image", "text", "audio")


def make_space(**temperatures: float) -> JointSpace:
    return JointSpace({name: AffineAdapter(4, 3) for name in NAMES}, temperatures)


def make_batch() -> tuple[dict[str, torch.Tensor], LatentBatch]:
    rng = torch.Generator().manual_seed(0)
    values = {name: torch.nn.functional.normalize(torch.randn(SIZE, 3, generator=rng)) for name in NAMES}
    present = {name: torch.rand(SIZE, generator=rng) < 0.8 for name in NAMES}
    content = {name: torch.randint(SIZE, (SIZE, 2), generator=rng) for name in NAMES}
    return values, LatentBatch(values, present, torch.arange(SIZE), content)


def loss_of(a: str, b: str, temperature: float) -> float:
    values, batch = make_batch()
    return float(
        info_nce(
            values[a],
            values[b],
            -torch.tensor(temperature).log(),
            present_u=batch.present[a],
            present_v=batch.present[b],
            content_u=batch.content[a],
            content_v=batch.content[b],
        )
    )


def test_all_pairs_of_three_modalities_make_a_triangle_of_one_temperature() -> None:
    objective = Objective.all_pairs(NAMES)
    assert [edge.name for edge in objective.edges] == ["image-text", "image-audio", "text-audio"]
    assert objective.temperatures == ["shared"]


def test_total_is_the_weighted_sum_and_each_edge_has_its_temperature() -> None:
    objective = Objective((Edge("image", "text", 2.0, "hot"), Edge("audio", "text", 0.25, "cold")))
    values, batch = make_batch()
    total, losses = objective(values, batch, make_space(hot=0.5, cold=0.05))
    expected = {"image-text": loss_of("image", "text", 0.5), "audio-text": loss_of("audio", "text", 0.05)}
    assert {name: float(loss.detach()) for name, loss in losses.items()} == pytest.approx(expected)
    assert float(total.detach()) == pytest.approx(2 * expected["image-text"] + 0.25 * expected["audio-text"])


def test_edges_that_name_one_temperature_share_its_gradient() -> None:
    space, (values, batch) = make_space(shared=0.07, unused=0.07), make_batch()
    total, losses = Objective.all_pairs(NAMES)(values, batch, space)
    shared = space.log_scales["shared"]
    alone = [float(torch.autograd.grad(loss, shared, retain_graph=True)[0]) for loss in losses.values()]
    total.backward()
    assert shared.grad is not None
    assert float(shared.grad) == pytest.approx(sum(alone))
    assert space.log_scales["unused"].grad is None


def test_an_edge_that_no_item_has_adds_exactly_nothing() -> None:
    values, batch = make_batch()
    batch.present["audio"][:] = False
    space = make_space(shared=0.07)
    total, losses = Objective.all_pairs(NAMES)(values, batch, space)
    assert float(losses["image-audio"].detach()) == float(losses["text-audio"].detach()) == 0
    assert float(total.detach()) == float(losses["image-text"].detach())
