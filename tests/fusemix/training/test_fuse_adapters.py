"""Published systems as a recipe's settings, trained end to end; their losses are in tests/fusemix/test_systems.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from fusemix.adapters.settings import AdapterSettings
from fusemix.edge import Edge
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.objective import Objective
from fusemix.recipe import load_recipe
from fusemix.training.fuse import fuse
from fusemix.training.settings import FuseSettings
from fusemix.training.size import step_size
from fusemix.training.space import fresh_space
from fusemix.training.validation import Validation
from tests.fusemix.synthetic import world
from tests.fusemix.training.test_size import counted

THREE = {"image": 24, "text": 16, "audio": 12}
IDENTITY = AdapterSettings(kind="identity")
RECIPE = """
name: mine
dataset: emoji
encoders: {image: efficientnet-lite0, text: minilm-l6-v2, audio: whisper-tiny}
fuse:
  steps: 60
  batch_size: 64
  joint_dim: 24
  learning_rate: 3.0e-3
  warmup_steps: 5
  validate_every: 20
  adapter: {expansion: 2, dropout: 0.1}
"""
LIT = """
  edges: [{a: image, b: text}]
  adapters: {image: {kind: identity}}
"""
IMAGEBIND = """
  edges: [{a: image, b: text}, {a: image, b: audio, temperature: 0.05}]
  adapters: {image: {kind: identity}}
"""
SAIL = """
  edges: [{a: image, b: text, loss: sigmoid}]
  temperature: 0.1
  bias: -5
  adapter: {kind: gated, expansion: 2, dropout: 0.1, noise: 0.1}
"""


def settings_of(system: str, folder: Path) -> FuseSettings:
    text = RECIPE.replace("  adapter: {expansion: 2, dropout: 0.1}\n", "") if "\n  adapter:" in system else RECIPE
    (folder / "mine.yaml").write_text(text + system)
    return load_recipe(folder / "mine.yaml").fuse


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def found(space: JointSpace, *edges: Edge) -> float:
    """Return the mean reciprocal rank over both directions of edges, on 30 items that were never trained on."""
    return Validation(world(modalities=THREE).split("test"), edges)(space)["mrr"]


def assert_anchored(space: JointSpace) -> None:
    latents = world(modalities=THREE)["image"].values
    assert list(space.adapter("image").parameters()) == []
    assert torch.equal(space.encode("image", latents), normalize(latents, dim=-1))


def test_lit_brings_text_to_latents_that_stay_as_they_are(tmp_path: Path) -> None:
    space = fuse(world(modalities=THREE), settings_of(LIT, tmp_path), run=tmp_path / "run", device="cpu")
    assert space.modalities == ["image", "text"]
    assert found(space, Edge("image", "text")) > 0.6
    assert_anchored(space)
    assert_anchored(JointSpace.load(tmp_path / "run" / "joint_space"))


def test_imagebind_aligns_what_meets_only_at_the_anchor(tmp_path: Path) -> None:
    space = fuse(world(modalities=THREE), settings_of(IMAGEBIND, tmp_path), device="cpu")
    assert_anchored(space)
    assert found(space, Edge("image", "text"), Edge("image", "audio")) > 0.6
    # Chance is 0.13.
    assert found(space, Edge("text", "audio")) > 0.25


def test_sail_trains_gated_adapters_with_the_sigmoid_loss(tmp_path: Path) -> None:
    space = fuse(world(modalities=THREE), settings_of(SAIL, tmp_path), device="cpu")
    assert [space.adapter(name).config()["kind"] for name in space.modalities] == ["gated", "gated"]
    assert [space.adapter(name).noise for name in space.modalities] == [0.1, 0.1]
    assert found(space, Edge("image", "text")) > 0.6


@pytest.mark.parametrize("system", [IMAGEBIND, SAIL])
def test_an_interrupted_run_goes_on_with_the_same_noise_and_anchor(system: str, tmp_path: Path) -> None:
    class Interrupted(Exception): ...

    def interrupt(step: int, figures: object) -> None:
        raise Interrupted

    settings = replace(settings_of(system, tmp_path), steps=4, validate_every=2, batch_size=24)
    latents = world(modalities=THREE)
    with pytest.raises(Interrupted):
        fuse(latents, settings, run=tmp_path / "half", device="cpu", on_validation=interrupt)
    # What others draw from torch's generator changes nothing.
    torch.manual_seed(1)
    fuse(latents, settings, run=tmp_path / "half", device="cpu")
    torch.manual_seed(2)
    fuse(latents, settings, run=tmp_path / "whole", device="cpu")
    losses = [line["loss"] for line in metrics(tmp_path / "whole")]
    assert [line["loss"] for line in metrics(tmp_path / "half")] == losses
    assert len(losses) == 4


def test_a_run_with_another_adapter_is_refused(tmp_path: Path) -> None:
    settings = FuseSettings(steps=1, batch_size=24, joint_dim=24, adapter=AdapterSettings(depth=0))
    fuse(world(), settings, run=tmp_path, device="cpu")
    with pytest.raises(FusemixError, match=r"fuse\.adapters\.image\.kind was None, now 'identity'"):
        fuse(world(), replace(settings, adapters={"image": IDENTITY}), run=tmp_path, device="cpu")


@pytest.mark.parametrize("micro_batch", [None, 7])
@pytest.mark.parametrize("system", [LIT, IMAGEBIND, SAIL])
def test_a_step_takes_the_flops_that_were_stated(system: str, micro_batch: int | None, tmp_path: Path) -> None:
    settings = replace(settings_of(system, tmp_path), batch_size=20, micro_batch=micro_batch)
    latents = world(modalities=THREE, missing=0)

    def flops(steps: int) -> int:
        # Both validate once, after their last step.
        return counted(lambda: fuse(latents, replace(settings, steps=steps, validate_every=steps), device="cpu"))

    objective = Objective(settings.edges_between(THREE))
    size = step_size(fresh_space([latents.split("train")], settings, objective), objective, settings)
    assert flops(2) - flops(1) == size.adapter_flops + size.loss_flops
