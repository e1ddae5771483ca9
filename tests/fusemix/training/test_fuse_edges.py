"""Training by the edges, losses and captions that the settings ask for."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusemix.adapters.settings import AdapterSettings
from fusemix.edge import Edge
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.objective import Objective
from fusemix.training.fuse import fuse
from fusemix.training.settings import FuseSettings
from fusemix.training.validation import Validation
from tests.fusemix.synthetic import world
from tests.fusemix.training.short_runs import metrics

SETTINGS = FuseSettings(
    steps=6,
    batch_size=24,
    joint_dim=16,
    adapter=AdapterSettings(expansion=2, dropout=0.2),
    learning_rate=3e-3,
    warmup_steps=2,
    validate_every=2,
)
THREE = {"image": 24, "text": 16, "audio": 12}
SIGMOID = (Edge("image", "text", loss="sigmoid"),)


def train(
    latents: PairedLatents, run: Path | None = None, objective: Objective | None = None, **change: Any
) -> JointSpace:
    return fuse(latents, replace(SETTINGS, **change), run=run, objective=objective, device="cpu")


def directions(figures: dict[str, float]) -> set[str]:
    return {name.removesuffix("/mrr") for name in figures if name.endswith("/mrr")}


def test_a_star_trains_and_validates_its_edges_alone(tmp_path: Path) -> None:
    space = train(world(modalities=THREE, missing=0.3), tmp_path, anchor="text")
    assert space.modalities == ["audio", "image", "text"]
    for line in metrics(tmp_path):
        assert line["loss"] == pytest.approx(line["loss/text-image"] + line["loss/text-audio"], rel=1e-6)
        assert "loss/image-audio" not in line
    validated = metrics(tmp_path)[-1]
    assert directions(validated) == {"text-to-image", "image-to-text", "text-to-audio", "audio-to-text"}
    assert validated["mrr"] == pytest.approx(np.mean([validated[f"{name}/mrr"] for name in directions(validated)]))


def test_edges_have_the_temperature_that_the_settings_give_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edges = (Edge("image", "text", 2.0, "own"), Edge("text", "audio"), Edge("image", "audio", 0.5, 0.05))
    space = train(world(modalities=THREE), tmp_path, edges=edges, temperature=0.2)
    assert list(space.log_scales) == ["image-text", "shared"]
    first, last = metrics(tmp_path)[0], metrics(tmp_path)[-1]
    assert {name for name in first if name.startswith("temperature/")} == {
        "temperature/image-text",
        "temperature/shared",
    }
    assert first["temperature/image-text"] == pytest.approx(0.2, abs=1e-4)
    assert last["temperature/image-text"] != last["temperature/shared"]
    parts = 2 * last["loss/image-text"] + last["loss/text-audio"] + 0.5 * last["loss/image-audio"]
    assert last["loss"] == pytest.approx(parts, rel=1e-6)
    mean = (last["temperature/image-text"] + last["temperature/shared"] + 0.05) / 3
    assert f"tau {mean:.4f}" in capsys.readouterr().err


def test_without_a_learned_temperature_training_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = train(world(), tmp_path, edges=(Edge("image", "text", temperature=0.06),))
    assert list(space.log_scales) == []
    assert "tau 0.0600" in capsys.readouterr().err
    # With the learned one frozen where it starts, the numbers are the same.
    train(world(), tmp_path / "learned", temperature=0.06, learning_rate=1e-30, final_learning_rate=0)
    train(
        world(),
        tmp_path / "fixed",
        edges=(Edge("image", "text", temperature=0.06),),
        learning_rate=1e-30,
        final_learning_rate=0,
    )
    for learned, fixed in zip(metrics(tmp_path / "learned"), metrics(tmp_path / "fixed"), strict=True):
        assert fixed["loss"] == pytest.approx(learned["loss"], rel=1e-6)


def test_the_sigmoid_loss_makes_items_found_that_it_never_saw(tmp_path: Path) -> None:
    longer = replace(SETTINGS, steps=100, batch_size=64, warmup_steps=10, validate_every=20)
    space = fuse(
        world(), replace(longer, edges=SIGMOID, temperature=0.1, bias=-5.0), run=tmp_path / "run", device="cpu"
    )
    assert Validation(world().split("test"), SIGMOID)(space)["mrr"] > 0.6
    lines = metrics(tmp_path / "run")
    assert lines[0]["bias/image-text"] == pytest.approx(-5.0, abs=1e-3)
    assert lines[-1]["bias/image-text"] != lines[0]["bias/image-text"]
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert lines[-1]["loss"] < lines[0]["loss"]
    saved = JointSpace.load(tmp_path / "run" / "joint_space")
    assert torch.equal(saved.biases["image-text"], space.biases["image-text"])


def test_a_sigmoid_run_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    class Interrupted(Exception): ...

    def interrupt(step: int, figures: object) -> None:
        if step == 4:
            raise Interrupted

    settings = replace(SETTINGS, edges=SIGMOID)
    with pytest.raises(Interrupted):
        fuse(world(), settings, run=tmp_path / "half", device="cpu", on_validation=interrupt)
    fuse(world(), settings, run=tmp_path / "half", device="cpu")
    fuse(world(), settings, run=tmp_path / "whole", device="cpu")
    assert metrics(tmp_path / "half") == metrics(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"edges": SIGMOID},
            "edges was 'image-text (weight 1.0, shared)', now 'image-text (weight 1.0, shared, sigmoid)'",
        ),
        ({"mask_equal_content": False}, "now 'image-text (weight 1.0, shared); equal content among the negatives'"),
        ({"captions": "all"}, "fuse.captions was 'one', now 'all'"),
        ({"bias": -2.71}, "fuse.bias was -10.0, now -2.71"),
    ],
)
def test_a_run_with_another_objective_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    train(world(), tmp_path)
    with pytest.raises(FusemixError, match="was started with other settings") as told:
        train(world(), tmp_path, **change)
    assert message in str(told.value)


def test_the_same_objective_in_other_words_is_the_same_run(tmp_path: Path) -> None:
    train(world(), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    train(world(), tmp_path, edges=(Edge("image", "text"),))
    train(world(), tmp_path, anchor="image")
    train(world(), tmp_path, objective=Objective((Edge("image", "text"),)))
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_run_that_an_earlier_version_began_goes_on(tmp_path: Path) -> None:
    train(world(), tmp_path)
    record = torch.load(tmp_path / "training_state.pt", weights_only=True)
    for key in ("captions", "mask_equal_content", "edges", "anchor", "bias"):
        del record["identity"][f"fuse.{key}"]
    torch.save(record, tmp_path / "training_state.pt")
    train(world(), tmp_path)
    with pytest.raises(FusemixError, match=r"fuse\.captions was 'one', now 'all'"):
        train(world(), tmp_path, captions="all")


def test_every_caption_can_be_a_pair_of_its_own(tmp_path: Path) -> None:
    train_split = world().split("train")
    pairs = int(torch.maximum(train_split["image"].counts, train_split["text"].counts).sum())
    assert pairs > 1.5 * len(train_split)
    train(world(), tmp_path, captions="all", mixup="none", batch_size=pairs)
    with pytest.raises(FusemixError, match=f"{pairs} pairs to train on, but a step takes {pairs + 1}"):
        train(world(), captions="all", mixup="none", batch_size=pairs + 1)


def losses_of_siblings(run: Path, *, mask: bool) -> list[float]:
    """Return the losses on items that have five equal latents of captions each, every one in a pair of its own."""
    names = [f"{index:02d}" for index in range(40)]
    rng = np.random.default_rng(0)
    owners = [name for name in names for _ in range(5)]
    text = np.repeat(rng.normal(size=(40, 3)), 5, axis=0)
    latents = PairedLatents.from_arrays(
        {"image": rng.normal(size=(40, 4)), "text": text},
        {"image": names, "text": owners},
        {name: "val" if index % 4 == 0 else "train" for index, name in enumerate(names)},
    )
    train(latents, run, captions="all", mask_equal_content=mask, batch_size=60)
    return [line["loss"] for line in metrics(run)]


def test_captions_of_one_picture_are_negatives_only_where_the_mask_is_off(tmp_path: Path) -> None:
    masked = losses_of_siblings(tmp_path / "masked", mask=True)
    kept = losses_of_siblings(tmp_path / "kept", mask=False)
    # Of 150 pairs, 60 mixed ones meet in a batch, so that each shares a parent with several others.
    assert all(one < other - 0.01 for one, other in zip(masked, kept, strict=True))


def test_a_modality_that_no_edge_names_gets_no_adapter(capsys: pytest.CaptureFixture[str]) -> None:
    latents = world(modalities=THREE)
    space = train(latents, edges=(Edge("image", "text"),))
    assert space.modalities == ["image", "text"]
    assert "audio: no edge names it, so it gets no adapter" in capsys.readouterr().err
    with pytest.raises(FusemixError, match="no latents of modality 'video'"):
        train(latents, objective=Objective((Edge("image", "video"),)))
    with pytest.raises(
        FusemixError, match="edge image-video: no latents of 'video': choose one of audio, image, text"
    ):
        train(latents, edges=(Edge("image", "video"),))
    with pytest.raises(FusemixError, match=r"fuse\.anchor is 'video', which has no latents"):
        train(latents, anchor="video")


def test_modalities_that_share_no_item_are_refused() -> None:
    rng = np.random.default_rng(0)
    items = {"image": [f"i{n}" for n in range(100)], "text": [f"t{n}" for n in range(100)]}
    latents = PairedLatents.from_arrays(
        {name: rng.normal(size=(100, 4)) for name in items},
        items,
        {name: "val" if name.endswith("9") else "train" for names in items.values() for name in names},
    )
    with pytest.raises(
        FusemixError, match=r"no item of the training split has both modalities of an edge \(image-text\): nothing"
    ):
        train(latents)
