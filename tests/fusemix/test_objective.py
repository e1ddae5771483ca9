from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusemix.adapters.linear import LinearAdapter
from fusemix.batch import LatentBatch
from fusemix.edge import Loss
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.losses import info_nce, sigmoid_loss
from fusemix.objective import Edge, Objective

SIZE = 12
NAMES = ("image", "text", "audio")


def make_space(**temperatures: float) -> JointSpace:
    return JointSpace({name: LinearAdapter(4, 3) for name in NAMES}, temperatures)


def make_batch() -> tuple[dict[str, torch.Tensor], LatentBatch]:
    rng = torch.Generator().manual_seed(0)
    values = {name: torch.nn.functional.normalize(torch.randn(SIZE, 3, generator=rng)) for name in NAMES}
    present = {name: torch.rand(SIZE, generator=rng) < 0.8 for name in NAMES}
    content = {name: torch.randint(SIZE, (SIZE, 2), generator=rng) for name in NAMES}
    return values, LatentBatch(values, present, torch.arange(SIZE)[:, None], content)


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


def mixed_objective() -> Objective:
    """Return a triangle in which every kind of temperature and both losses occur."""
    return Objective(
        (
            Edge("image", "text", 2.0, "own"),
            Edge("image", "audio", 0.5, 0.05),
            Edge("audio", "text", 1.5, "shared", "sigmoid"),
        )
    )


def space_of(objective: Objective) -> JointSpace:
    torch.manual_seed(0)
    adapters = {name: LinearAdapter(4, 3) for name in NAMES}
    biases = dict.fromkeys(objective.biases, -3.0)
    return JointSpace(adapters, dict.fromkeys(objective.temperatures, 0.1), None, biases).double()


def latents_with(present: dict[str, Tensor]) -> LatentBatch:
    """Return a batch of latents, zeros where an item lacks the modality; some contents are equal."""
    rng = torch.Generator().manual_seed(1)
    size = len(present["image"])
    values = {
        name: torch.randn(size, 4, generator=rng, dtype=torch.float64) * present[name][:, None] for name in NAMES
    }
    content = {name: torch.randint(2 * size, (size, 2), generator=rng) for name in NAMES}
    return LatentBatch(values, present, torch.arange(size)[:, None], content)


def only(batch: LatentBatch, chosen: Tensor) -> LatentBatch:
    return LatentBatch(
        {name: value[chosen] for name, value in batch.values.items()},
        {name: mask[chosen] for name, mask in batch.present.items()},
        batch.parents[chosen],
        {name: hashes[chosen] for name, hashes in batch.content.items()},
    )


def losses_and_gradients(
    objective: Objective, batch: LatentBatch, edge: str | None = None
) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Return the total, or the loss of one edge, and its gradients by all parameters of a space."""
    space = space_of(objective)
    total, losses = objective({name: space(name, batch.values[name]).double() for name in NAMES}, batch, space)
    loss = total if edge is None else losses[edge]
    parameters = dict(space.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return loss.detach(), dict(zip(parameters, gradients, strict=True))


def assert_same(
    found: tuple[Tensor, dict[str, Tensor | None]], right: tuple[Tensor, dict[str, Tensor | None]]
) -> None:
    torch.testing.assert_close(found[0], right[0], rtol=1e-6, atol=1e-12)
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, right[1][name], rtol=1e-6, atol=1e-7)


def some_absent() -> dict[str, Tensor]:
    """Return which of 40 items have what; items 0 to 4 have nothing at all."""
    rng = torch.Generator().manual_seed(2)
    return {name: (torch.rand(40, generator=rng) < 0.6) & (torch.arange(40) >= 5) for name in NAMES}


def test_a_masked_batch_is_the_batch_without_the_absent_items() -> None:
    objective, present = mixed_objective(), some_absent()
    batch = latents_with(present)
    anywhere = present["image"] | present["text"] | present["audio"]
    assert int(anywhere.sum()) < 36
    assert_same(losses_and_gradients(objective, batch), losses_and_gradients(objective, only(batch, anywhere)))


def test_an_edge_sees_nothing_of_items_that_lack_both_of_its_modalities() -> None:
    objective, present = mixed_objective(), some_absent()
    batch = latents_with(present)
    for edge in objective.edges:
        kept = present[edge.a] | present[edge.b]
        assert int(kept.sum()) < 36
        assert_same(
            losses_and_gradients(objective, batch, edge.name),
            losses_and_gradients(objective, only(batch, kept), edge.name),
        )


def test_unpaired_items_serve_as_negatives_only() -> None:
    # Items 0 and 1 are pairs, item 2 has the image alone, item 3 the text alone.
    image = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2], [0.3, 1.0], [1.0, -0.5], [9.0, 9.0]]))
    text = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.1, 1.0], [9.0, 9.0], [-1.0, 1.0]]))
    present = {
        "image": torch.tensor([True, True, True, False]),
        "text": torch.tensor([True, True, False, True]),
        "audio": torch.zeros(4, dtype=torch.bool),
    }
    scores = image @ text.T / 0.1
    by_row = [scores[k, [0, 1, 3]].logsumexp(0) - scores[k, k] for k in (0, 1)]
    by_column = [scores[[0, 1, 2], k].logsumexp(0) - scores[k, k] for k in (0, 1)]
    batch = LatentBatch({}, present, torch.arange(4)[:, None], {name: torch.arange(4) for name in NAMES})
    losses = {}
    for loss in ("info_nce", "sigmoid"):
        kind: Loss = "sigmoid" if loss == "sigmoid" else "info_nce"
        objective = Objective((Edge("image", "text", 1.0, 0.1, kind),))
        losses[loss] = float(
            objective({"image": image, "text": text}, batch, space_of(objective).float())[0].detach()
        )
    assert losses["info_nce"] == pytest.approx(float(sum(by_row) + sum(by_column)) / 4, rel=1e-6)
    compared = [(0, 0), (0, 1), (0, 3), (1, 0), (1, 1), (1, 3), (2, 0), (2, 1)]
    softplus = torch.nn.functional.softplus
    terms = [softplus((scores[i, j] - 3) * (-1 if i == j else 1)) for i, j in compared]
    assert losses["sigmoid"] == pytest.approx(float(sum(terms)) / 2, rel=1e-6)


def test_an_edge_without_a_pair_is_exactly_zero_and_so_are_its_gradients() -> None:
    objective, present = mixed_objective(), some_absent()
    present["audio"][:] = ~(present["image"] | present["text"])
    batch = latents_with(present)
    for edge in ("image-audio", "audio-text"):
        loss, gradients = losses_and_gradients(objective, batch, edge)
        assert float(loss) == 0
        assert all(gradient is None or not gradient.any() for gradient in gradients.values())
    total, gradients = losses_and_gradients(objective, batch)
    image_text, expected = losses_and_gradients(objective, batch, "image-text")
    assert float(total) == 2 * float(image_text)
    for name, gradient in gradients.items():
        right = expected[name]
        assert gradient is None or torch.equal(gradient, torch.zeros_like(gradient) if right is None else 2 * right)


def test_a_batch_without_any_pair_trains_nothing() -> None:
    objective = mixed_objective()
    nobody = {name: torch.zeros(7, dtype=torch.bool) for name in NAMES}
    total, gradients = losses_and_gradients(objective, latents_with(nobody))
    assert float(total) == 0
    assert all(gradient is not None and not gradient.any() for gradient in gradients.values())


def test_equal_content_is_masked_after_mixup_unless_switched_off() -> None:
    values, batch = make_batch()
    shared = {name: torch.arange(2 * SIZE).view(SIZE, 2) for name in NAMES}
    shared["text"][1, 1] = shared["text"][0, 0]
    batch = LatentBatch(values, {name: torch.ones(SIZE, dtype=torch.bool) for name in NAMES}, batch.parents, shared)
    space = make_space(shared=0.07)
    scores = values["image"] @ values["text"].T / 0.07
    one_apart = scores.clone()
    one_apart[0, 1] = one_apart[1, 0] = -torch.inf

    def reference(scores: Tensor) -> float:
        targets, entropy = torch.arange(SIZE), torch.nn.functional.cross_entropy
        return float(entropy(scores, targets) + entropy(scores.T, targets)) / 2

    edges = (Edge("image", "text"),)
    masked, kept = (float(Objective(edges, mask)(values, batch, space)[0].detach()) for mask in (True, False))
    assert masked == pytest.approx(reference(one_apart), rel=1e-6)
    assert kept == pytest.approx(reference(scores), rel=1e-6)
    assert masked != pytest.approx(kept, rel=1e-6)


def materialised(scores: Tensor, kept: Tensor) -> float:
    """Return the symmetric InfoNCE over the entries that are kept."""
    scores, targets = scores.masked_fill(~kept, -torch.inf), torch.arange(SIZE)
    entropy = torch.nn.functional.cross_entropy
    return float(entropy(scores, targets) + entropy(scores.T, targets)) / 2


def test_mixtures_of_one_item_are_no_negatives_though_equal_content_is() -> None:
    values, _ = make_batch()
    rng = torch.Generator().manual_seed(3)
    present = {name: torch.ones(SIZE, dtype=torch.bool) for name in NAMES}
    content = {name: torch.zeros(SIZE, 2, dtype=torch.int64) for name in NAMES}
    scores = values["image"] @ values["text"].T / 0.07
    space, edges = make_space(shared=0.07), (Edge("image", "text"),)
    shifted = torch.stack([torch.arange(SIZE), torch.arange(SIZE).roll(-1)], dim=1)
    for parents in (shifted, torch.randint(SIZE, (SIZE, 2), generator=rng), torch.arange(2 * SIZE).view(2, SIZE).T):
        batch = LatentBatch(values, present, parents, content)
        related = (parents[:, None, :, None] == parents[None, :, None, :]).any(dim=(2, 3))
        kept = ~related | torch.eye(SIZE, dtype=torch.bool)
        loss = Objective(edges, mask_equal_content=False)(values, batch, space)[0]
        assert float(loss.detach()) == pytest.approx(materialised(scores, kept), rel=1e-6)
    # Equal parents of unmixed items say nothing: an item of a dataset may stand there once for each caption.
    unmixed = LatentBatch(values, present, torch.zeros(SIZE, 1, dtype=torch.int64), content)
    loss = Objective(edges, mask_equal_content=False)(values, unmixed, space)[0]
    assert float(loss.detach()) == pytest.approx(materialised(scores, torch.ones(SIZE, SIZE).bool()), rel=1e-6)


def test_a_sigmoid_edge_has_its_own_bias_and_honours_the_switch() -> None:
    values, batch = make_batch()
    edge = Edge("image", "text", temperature=0.1, loss="sigmoid")
    space = JointSpace({name: LinearAdapter(4, 3) for name in NAMES}, biases={"image-text": -1.0, "audio-text": 5.0})
    arguments = (values["image"], values["text"], torch.tensor(10.0).log(), torch.tensor(-1.0))
    masks = {"present_u": batch.present["image"], "present_v": batch.present["text"]}
    contents = {"content_u": batch.content["image"], "content_v": batch.content["text"]}
    for switch, given in ((True, masks | contents), (False, masks)):
        objective = Objective((edge,), mask_equal_content=switch)
        assert (objective.biases, objective.temperatures) == (["image-text"], [])
        loss = objective(values, batch, space)[0]
        assert float(loss.detach()) == pytest.approx(float(sigmoid_loss(*arguments, **given)), rel=1e-6)


def test_an_objective_tells_all_that_a_run_depends_on() -> None:
    objective = Objective.all_pairs(NAMES[:2])
    assert str(objective) == "image-text (weight 1.0, shared)"
    switched = Objective((*objective.edges, Edge("text", "audio", 2.0, 0.2, "sigmoid")), mask_equal_content=False)
    assert str(switched) == (
        "image-text (weight 1.0, shared), text-audio (weight 2.0, 0.2, sigmoid); equal content among the negatives"
    )
    assert switched.modalities == ["audio", "image", "text"]


def test_an_objective_without_edges_or_with_one_twice_is_refused() -> None:
    with pytest.raises(FusemixError, match="one edge or more"):
        Objective(())
    with pytest.raises(FusemixError, match="edges image-text and text-image join the same modalities"):
        Objective((Edge("image", "text"), Edge("text", "image", loss="sigmoid")))
