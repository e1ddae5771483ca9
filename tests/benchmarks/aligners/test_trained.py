"""What the trained styles lock, train and minimise; their losses are tested with the objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from fusemix.adapters import AdapterSettings
from fusemix.benchmarks.aligners import fusemix_style, lit_style, sail_style, sharelock_style
from fusemix.edge import Edge
from fusemix.joint_space import JointSpace
from fusemix.training.fuse import fuse
from fusemix.training.settings import FuseSettings
from tests.benchmarks.small_world import small_world

Style = Callable[[FuseSettings, str, str, tuple[int, int]], FuseSettings]

DIMS = (7, 5)
RECIPE = FuseSettings(
    steps=3,
    batch_size=8,
    joint_dim=4,
    warmup_steps=1,
    validate_every=3,
    adapter=AdapterSettings(depth=0),
    adapters={"audio": AdapterSettings(depth=3), "text": AdapterSettings(depth=1, expansion=1)},
    edges=(Edge("audio", "text"), Edge("text", "image", weight=2.0, temperature="own")),
    dataset_weights={"other": 2.0},
)


def trained(settings: FuseSettings) -> JointSpace:
    return fuse(small_world(dims=DIMS), settings)


def test_fusemix_keeps_the_recipe_but_for_other_modalities() -> None:
    settings = fusemix_style(RECIPE, "image", "text")
    assert settings.edges == (Edge("text", "image", weight=2.0, temperature="own"),)
    assert settings.adapters == {"text": AdapterSettings(depth=1, expansion=1)}
    assert replace(
        settings, edges=RECIPE.edges, adapters=RECIPE.adapters, dataset_weights=RECIPE.dataset_weights
    ) == (RECIPE)
    assert fusemix_style(RECIPE, "image", "audio").edges == (Edge("image", "audio"),)
    assert fusemix_style(replace(RECIPE, edges=(), anchor="text"), "image", "text").edges == (Edge("image", "text"),)


@pytest.mark.parametrize("style", [lit_style, sharelock_style])
@pytest.mark.parametrize(("a", "b", "dims"), [("image", "text", DIMS), ("text", "image", DIMS[::-1])])
def test_one_side_is_locked_and_is_the_joint_space(style: Style, a: str, b: str, dims: tuple[int, int]) -> None:
    settings = style(RECIPE, a, b, dims)
    assert settings.mixup == "none"
    space, latents = trained(settings), small_world(dims=DIMS)
    assert space.dim == dims[0]
    locked = torch.nn.functional.normalize(latents[a].values.float())
    torch.testing.assert_close(space.encode(a, latents[a].values), locked)
    assert list(space.adapter(a).parameters()) == []


def test_lit_trains_the_recipe_s_adapter_and_sharelock_an_mlp_of_its_own() -> None:
    assert lit_style(RECIPE, "image", "text", DIMS).adapters["text"] == AdapterSettings(depth=1, expansion=1)
    assert lit_style(RECIPE, "text", "image", DIMS[::-1]).adapters["image"] == AdapterSettings(depth=0)
    assert sharelock_style(RECIPE, "image", "text", DIMS).adapters["text"].depth == 2


def test_lit_has_something_to_train_where_the_recipe_s_adapter_is_the_identity() -> None:
    recipe = replace(RECIPE, adapters={"text": AdapterSettings(kind="identity")})
    assert lit_style(recipe, "image", "text", DIMS).adapters["text"].kind == "mlp"


def test_sail_is_gated_with_the_sigmoid_loss() -> None:
    settings = sail_style(RECIPE, "image", "text", DIMS)
    assert settings.mixup == "none"
    assert [(edge.name, edge.loss) for edge in settings.edges] == [("image-text", "sigmoid")]
    assert (settings.temperature, settings.bias) == (0.1, -10.0)
    space = trained(settings)
    assert {name: space.adapter(name).kind for name in space.modalities} == {"image": "gated", "text": "gated"}
    assert space.dim == RECIPE.joint_dim


def test_sail_s_wide_latents_get_a_linear_adapter() -> None:
    settings = sail_style(RECIPE, "image", "text", (1025, 1024))
    assert (settings.adapters["image"].kind, settings.adapters["text"].kind) == ("linear", "gated")


def test_all_train_as_long_and_as_large_as_the_recipe() -> None:
    for settings in (
        fusemix_style(RECIPE, "image", "text"),
        lit_style(RECIPE, "image", "text", DIMS),
        sharelock_style(RECIPE, "image", "text", DIMS),
        sail_style(RECIPE, "image", "text", DIMS),
    ):
        for name in ("steps", "batch_size", "learning_rate", "weight_decay", "captions", "patience", "seed"):
            assert getattr(settings, name) == getattr(RECIPE, name)
