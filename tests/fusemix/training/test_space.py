from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusemix.adapters import AdapterSettings, GatedAdapter, IdentityAdapter, LinearAdapter, MLPAdapter
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import DatasetStamp, EncoderSpec
from fusemix.objective import Edge, Objective
from fusemix.randomness import derive_seed
from fusemix.training.schedule import make_optimizer
from fusemix.training.settings import FuseSettings
from fusemix.training.space import fresh_space
from tests.fusemix.synthetic import encoder, world

THREE = {"image": 24, "text": 16, "audio": 12}
PAIR = Objective((Edge("image", "text"),))
TRIANGLE = Objective.all_pairs(THREE)
SETTINGS = FuseSettings(joint_dim=24, adapter=AdapterSettings(depth=2, expansion=2, dropout=0.3), seed=5)
IDENTITY = AdapterSettings(kind="identity")


def train_split(modalities: Mapping[str, int] = THREE, name: str = "arrays", **how: Any) -> PairedLatents:
    return replace(world(modalities=modalities, **how).split("train"), dataset=DatasetStamp(name))


def with_spec(latents: PairedLatents, spec: EncoderSpec) -> PairedLatents:
    modality = replace(latents[spec.modality], spec=spec)
    return replace(latents, modalities={**latents.modalities, spec.modality: modality})


def test_weights_follow_from_the_seed_and_the_name_alone() -> None:
    before = torch.get_rng_state()
    three = fresh_space([train_split()], SETTINGS, TRIANGLE)
    assert torch.equal(torch.get_rng_state(), before)
    two = fresh_space([train_split()], SETTINGS, PAIR)
    assert (three.modalities, two.modalities) == (["audio", "image", "text"], ["image", "text"])
    for name in two.modalities:
        torch.manual_seed(derive_seed(5, "weights", name))
        drawn = MLPAdapter(THREE[name], 24, depth=2, expansion=2, dropout=0.3)
        assert three.adapter(name).config() == drawn.config()
        for key, weight in drawn.named_parameters():
            assert torch.equal(three.adapter(name).get_parameter(key), weight)
            assert torch.equal(two.adapter(name).get_parameter(key), weight)


def test_temperatures_and_biases_are_those_of_the_edges() -> None:
    edges = (Edge("image", "text", loss="sigmoid"), Edge("text", "audio", temperature="text-audio"))
    space = fresh_space([train_split()], replace(SETTINGS, temperature=0.1, bias=-2.71), Objective(edges))
    assert {name: space.temperature(name) for name in space.log_scales} == pytest.approx(
        {"shared": 0.1, "text-audio": 0.1}
    )
    assert {name: float(bias.detach()) for name, bias in space.biases.items()} == pytest.approx({"image-text": -2.71})


def test_each_modality_has_the_adapter_that_the_settings_give_it() -> None:
    adapters = {
        "image": IDENTITY,
        "text": AdapterSettings(kind="gated", depth=3, expansion=1, dropout=0.1, noise=0.2),
    }
    space = fresh_space([train_split()], replace(SETTINGS, adapters=adapters), TRIANGLE)
    assert [type(space.adapter(name)) for name in THREE] == [IdentityAdapter, GatedAdapter, MLPAdapter]
    assert space.adapter("text").config() == adapters["text"].config(16, 24)
    assert space.adapter("audio").config() == SETTINGS.adapter.config(12, 24)


def test_statistics_are_of_all_datasets_together_and_leave_an_identity_alone() -> None:
    parts = [train_split(items=300), train_split(items=90, seed=1), train_split({"image": 24, "audio": 12}, seed=2)]
    settings = replace(SETTINGS, adapters={"image": IDENTITY})
    space = fresh_space(parts, settings, TRIANGLE)
    for name, count in (("text", 2), ("audio", 3)):
        having = [part[name] for part in parts if name in part.modalities]
        assert len(having) == count
        rows = np.concatenate([m.values[m.rows].double().numpy() for m in having])
        np.testing.assert_allclose(space.adapter(name).mean, rows.mean(0), rtol=1e-5)
        np.testing.assert_allclose(space.adapter(name).inverse_std, 1 / rows.std(0), rtol=1e-5)
    assert torch.equal(space.adapter("image").mean, torch.zeros(24))
    assert torch.equal(space.adapter("image").inverse_std, torch.ones(24))


def test_a_space_of_all_kinds_is_optimised_saved_loaded_and_encodes(tmp_path: Path) -> None:
    latents = train_split({**THREE, "video": 8})
    adapters = {
        "audio": AdapterSettings(kind="linear", noise=0.1),
        "image": IDENTITY,
        "text": AdapterSettings(kind="gated"),
    }
    space = fresh_space([latents], replace(SETTINGS, adapters=adapters), Objective.all_pairs(latents.modalities))
    optimizer = make_optimizer(space, SETTINGS)
    before = {name: weight.detach().clone() for name, weight in space.named_parameters()}
    sum(space(name, latents[name].values).sum() for name in space.modalities).backward()
    optimizer.step()
    moved = {name for name, weight in space.named_parameters() if not torch.equal(weight, before[name])}
    assert {name.split(".")[1] for name in moved} == {"audio", "text", "video"}
    space.save(tmp_path)
    again = JointSpace.load(tmp_path)
    assert [type(again.adapter(name)) for name in again.modalities] == [
        LinearAdapter,
        IdentityAdapter,
        GatedAdapter,
        MLPAdapter,
    ]
    for name in space.modalities:
        assert again.adapter(name).config() == space.adapter(name).config()
        assert torch.equal(again.encode(name, latents[name].values), space.encode(name, latents[name].values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"adapters": {"imgae": IDENTITY}},
            "fuse.adapters.imgae: no edge joins a modality 'imgae': did you mean 'image'?",
        ),
        ({"adapters": {"audio": IDENTITY}}, "fuse.adapters.audio: no edge joins a modality 'audio': choose one of"),
        (
            {"adapters": {"text": IDENTITY}},
            "text: an identity adapter keeps the dimension of its latents, 16, but the joint space has 24: set"
            " fuse.joint_dim to 16",
        ),
    ],
)
def test_adapters_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FusemixError) as told:
        fresh_space([train_split()], replace(SETTINGS, **change), PAIR)
    assert message in str(told.value)


def test_identities_alone_leave_nothing_to_train() -> None:
    latents = train_split({"image": 24, "text": 24})
    with pytest.raises(FusemixError, match="nothing to train: the adapters of image, text are all of kind identity"):
        fresh_space([latents], replace(SETTINGS, adapter=IDENTITY), PAIR)


def test_datasets_of_one_encoder_share_an_adapter() -> None:
    spec = encoder(dim=24, revision="1", dtype="float16")
    parts = [
        train_split(name="unknown"),
        with_spec(train_split(name="coco", seed=1), spec),
        with_spec(train_split(name="sbu", seed=2), replace(spec, dtype="float32")),
    ]
    assert fresh_space(parts, SETTINGS, PAIR).specs == {"image": spec, "text": None}
    with pytest.raises(FusemixError) as told:
        fresh_space([*parts, with_spec(train_split(name="vg"), replace(spec, revision="2"))], SETTINGS, PAIR)
    assert str(told.value) == (
        "the image latents of the datasets 'coco' and 'vg' come from different encoders (coco / vg: revision: '1' /"
        " '2'); extract both with one encoder"
    )


def test_datasets_of_different_dimensions_are_refused_by_name() -> None:
    parts = [train_split(name="coco"), train_split({**THREE, "text": 17}, name="vg")]
    with pytest.raises(FusemixError) as told:
        fresh_space(parts, SETTINGS, PAIR)
    assert str(told.value) == (
        "the text latents have dimension 16 in the dataset 'coco' and 17 in 'vg': use latents of one encoder in both"
    )


def test_a_modality_that_no_dataset_has_is_refused() -> None:
    with pytest.raises(FusemixError, match="no latents of modality 'vidoe': choose one of audio, image, text"):
        fresh_space([train_split()], SETTINGS, Objective((Edge("image", "vidoe"),)))
