"""Published systems, each as a recipe's settings, against their losses written by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from fusemix.adapters import IdentityAdapter, MLPAdapter
from fusemix.adapters.adapter import Adapter
from fusemix.batch import LatentBatch
from fusemix.edge import Edge
from fusemix.joint_space import JointSpace
from fusemix.mixing import mixup
from fusemix.objective import Objective
from fusemix.training.settings import FuseSettings

SIZE, DIM = 24, 6
DIMS = {"image": DIM, "text": 5, "audio": 4}
# It has nothing that tests could change.
ANCHOR = IdentityAdapter(DIM, DIM)


def make_batch(*names: str, seed: int = 0) -> LatentBatch:
    rng = torch.Generator().manual_seed(seed)
    return LatentBatch(
        {name: torch.randn(SIZE, DIMS[name], generator=rng) for name in names},
        {name: torch.ones(SIZE, dtype=torch.bool) for name in names},
        torch.arange(SIZE)[:, None] + SIZE * seed,
        {name: torch.arange(SIZE)[:, None] + SIZE * seed for name in names},
    )


def make_space(objective: Objective, settings: FuseSettings, **adapters: Adapter) -> JointSpace:
    torch.manual_seed(0)
    made = {name: adapters.get(name, MLPAdapter(DIMS[name], DIM, dropout=0)) for name in objective.modalities}
    temperatures = dict.fromkeys(objective.temperatures, settings.temperature)
    return JointSpace(made, temperatures, None, dict.fromkeys(objective.biases, settings.bias))


def objective_of(settings: FuseSettings, *modalities: str) -> Objective:
    return Objective(settings.edges_between(modalities), settings.mask_equal_content)


def embed(space: JointSpace, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: space(name, values[name]).double() for name in space.modalities}


def clip_loss(u: Tensor, v: Tensor, temperature: Tensor | float) -> Tensor:
    """Return the loss of figure 3 of CLIP's paper."""
    logits, targets = u @ v.T / temperature, torch.arange(len(u))
    return (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2


def assert_same(loss: Tensor, expected: Tensor, space: JointSpace) -> None:
    """Compare losses, and their gradients by everything that is learned, to 1e-6."""
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    learned = {name: parameter for name, parameter in space.named_parameters() if parameter.requires_grad}
    found, right = (torch.autograd.grad(of, list(learned.values()), retain_graph=True) for of in (loss, expected))
    for name, mine, reference in zip(learned, found, right, strict=True):
        assert float((mine - reference).abs().max()) <= 1e-6 * max(1.0, float(reference.abs().max())), name


def test_one_edge_is_clip() -> None:
    settings = FuseSettings()
    objective = objective_of(settings, "image", "text")
    space, batch = make_space(objective, settings), make_batch("image", "text")
    embeddings = embed(space, batch.values)
    expected = clip_loss(embeddings["image"], embeddings["text"], 1 / space.log_scales["shared"].exp())
    assert space.temperature("shared") == pytest.approx(0.07)
    assert_same(objective(embeddings, batch, space)[0], expected, space)


def test_one_edge_on_mixed_latents_is_fusemix() -> None:
    settings, lam = FuseSettings(), 0.3
    objective = objective_of(settings, "image", "text")
    space = make_space(objective, settings)
    first, second = make_batch("image", "text"), make_batch("image", "text", seed=1)
    mixed = {name: lam * first.values[name] + (1 - lam) * second.values[name] for name in ("image", "text")}
    batch = mixup(first, second, lam)
    ours, theirs = embed(space, batch.values), embed(space, mixed)
    expected = clip_loss(theirs["image"], theirs["text"], 1 / space.log_scales["shared"].exp())
    assert_same(objective(ours, batch, space)[0], expected, space)


def test_a_triangle_with_a_temperature_each_is_synergy_clip() -> None:
    edges = (
        Edge("image", "text", 1.0, "own"),
        Edge("text", "audio", 0.5, "own"),
        Edge("audio", "image", 2.0, "own"),
    )
    settings = FuseSettings(edges=edges)
    objective = objective_of(settings, "image", "text", "audio")
    space, batch = make_space(objective, settings), make_batch("image", "text", "audio")
    assert list(space.log_scales) == ["audio-image", "image-text", "text-audio"]
    with torch.no_grad():
        for log_scale, value in zip(space.log_scales.values(), (2.0, 2.5, 3.0), strict=True):
            log_scale.fill_(value)
    z, scale = embed(space, batch.values), space.log_scales
    expected = (
        clip_loss(z["image"], z["text"], 1 / scale["image-text"].exp())
        + 0.5 * clip_loss(z["text"], z["audio"], 1 / scale["text-audio"].exp())
        + 2.0 * clip_loss(z["audio"], z["image"], 1 / scale["audio-image"].exp())
    )
    assert_same(objective(z, batch, space)[0], expected, space)


def test_an_edge_to_the_identity_is_lit() -> None:
    settings = FuseSettings()
    objective = objective_of(settings, "image", "text")
    space, batch = make_space(objective, settings, image=ANCHOR), make_batch("image", "text")
    embeddings, locked = embed(space, batch.values), normalize(batch.values["image"]).double()
    expected = clip_loss(locked, embeddings["text"], 1 / space.log_scales["shared"].exp())
    assert_same(objective(embeddings, batch, space)[0], expected, space)


def test_an_anchor_is_a_star() -> None:
    settings = FuseSettings(anchor="image")
    objective = objective_of(settings, "text", "image", "audio")
    space, batch = make_space(objective, settings, image=ANCHOR), make_batch("image", "text", "audio")
    z, tau = embed(space, batch.values), 1 / space.log_scales["shared"].exp()
    anchor = normalize(batch.values["image"]).double()
    expected = clip_loss(anchor, z["text"], tau) + clip_loss(anchor, z["audio"], tau)
    assert_same(objective(z, batch, space)[0], expected, space)


def test_a_star_with_a_learned_and_a_fixed_temperature_is_imagebind() -> None:
    settings = FuseSettings(edges=(Edge("image", "text"), Edge("image", "audio", temperature=0.05)))
    objective = objective_of(settings, "image", "text", "audio")
    space, batch = make_space(objective, settings, image=ANCHOR), make_batch("image", "text", "audio")
    assert list(space.log_scales) == ["shared"]
    z, tau = embed(space, batch.values), 1 / space.log_scales["shared"].exp()
    anchor = normalize(batch.values["image"]).double()
    expected = clip_loss(anchor, z["text"], tau) + clip_loss(anchor, z["audio"], 0.05)
    assert_same(objective(z, batch, space)[0], expected, space)


def test_a_sigmoid_edge_is_siglip_and_sail() -> None:
    settings = FuseSettings(edges=(Edge("image", "text", loss="sigmoid"),), temperature=0.1)
    objective = objective_of(settings, "image", "text")
    space, batch = make_space(objective, settings), make_batch("image", "text")
    assert {name: float(bias.detach()) for name, bias in space.biases.items()} == {"image-text": -10.0}
    z = embed(space, batch.values)
    logits = z["image"] @ z["text"].T * space.log_scales["shared"].exp() + space.biases["image-text"]
    expected = -logsigmoid((2 * torch.eye(SIZE) - 1) * logits).sum() / SIZE
    assert_same(objective(z, batch, space)[0], expected, space)
