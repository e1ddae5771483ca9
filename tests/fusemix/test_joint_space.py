from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusemix.adapters import LinearAdapter, MLPAdapter
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.file import LatentsFile
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import EncoderSpec
from tests.fusemix.synthetic import encoder


def make_space(**specs: EncoderSpec | None) -> JointSpace:
    torch.manual_seed(0)
    adapters = {"image": MLPAdapter(6, 5, depth=2, expansion=2), "text": LinearAdapter(4, 5)}
    adapters["image"].standardise_by(torch.randn(6), torch.rand(6))
    return JointSpace(adapters, {"shared": 0.07, "own": 0.2}, specs or {"image": encoder("image", 6), "text": None})


def latents_of(tmp_path: Path, **specs: EncoderSpec) -> PairedLatents:
    files = {}
    for name, spec in specs.items():
        files[name] = tmp_path / f"{name}.h5"
        LatentsFile.from_arrays(files[name], ["a"], np.ones((1, spec.dim)), spec)
    return PairedLatents.load(files)


def test_embeddings_are_normalised_adapter_outputs() -> None:
    space, latents = make_space().eval(), torch.randn(7, 6)
    output = space.adapter("image")(latents)
    embeddings = space.encode("image", latents)
    torch.testing.assert_close(embeddings, output / output.norm(dim=1, keepdim=True))
    torch.testing.assert_close(space("image", latents), embeddings)


def test_encoding_needs_no_dropout_nor_gradients_and_leaves_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusemix.joint_space.ROWS_AT_ONCE", 3)
    space, latents = make_space().train(), torch.randn(8, 6)
    embeddings = space.encode("image", latents)
    assert space.training
    assert not embeddings.requires_grad
    torch.testing.assert_close(embeddings, space.eval()("image", latents))


def test_no_latents_give_no_embeddings() -> None:
    assert make_space().encode("text", torch.empty(0, 4)).shape == (0, 5)


def test_saving_and_loading_keeps_every_bit(tmp_path: Path) -> None:
    space = make_space()
    space.save(tmp_path / "joint_space")
    again = JointSpace.load(tmp_path / "joint_space")
    before, after = space.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert (again.modalities, again.dim, again.specs) == (space.modalities, 5, space.specs)
    assert not again.training
    latents = torch.randn(9, 6)
    assert torch.equal(again.encode("image", latents), space.encode("image", latents))


def test_biases_are_saved_with_the_space(tmp_path: Path) -> None:
    adapters = {"image": LinearAdapter(6, 5), "text": LinearAdapter(4, 5)}
    space = JointSpace(adapters, {"shared": 0.1}, biases={"image-text": -10.0, "audio-image": -2.71})
    with torch.no_grad():
        space.biases["image-text"].fill_(-7.5)
    space.save(tmp_path)
    loaded = JointSpace.load(tmp_path)
    biases = {name: float(bias.detach()) for name, bias in loaded.biases.items()}
    assert biases == pytest.approx({"image-text": -7.5, "audio-image": -2.71})


def test_a_space_saved_before_there_were_biases_loads(tmp_path: Path) -> None:
    space = make_space()
    space.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["biases"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = JointSpace.load(tmp_path)
    assert len(loaded.biases) == 0
    assert torch.equal(loaded.encode("text", torch.ones(1, 4)), space.encode("text", torch.ones(1, 4)))


def test_saving_over_an_older_space_replaces_it(tmp_path: Path) -> None:
    make_space().save(tmp_path)
    newer = JointSpace({"sound": LinearAdapter(3, 2)}, {"shared": 0.5})
    newer.save(tmp_path)
    assert JointSpace.load(tmp_path).modalities == ["sound"]


def test_a_full_disk_is_told_and_the_older_space_stays(tiny_disk: Path) -> None:
    make_space().save(tiny_disk)
    weights = (tiny_disk / "adapters.safetensors").read_bytes()
    with pytest.raises(FusemixError, match=r"cannot write .*adapters\.safetensors: No space left.*free some space"):
        JointSpace({"image": LinearAdapter(2000, 1000)}).save(tiny_disk)
    assert (tiny_disk / "adapters.safetensors").read_bytes() == weights


def test_temperatures_are_clamped_to_the_bounds() -> None:
    space = JointSpace({"image": LinearAdapter(2, 2)}, {"low": 1e-5, "fine": 0.07, "high": 3.0})
    space.clamp_temperatures(0.001, 0.5)
    assert [space.temperature(name) for name in ("low", "fine", "high")] == pytest.approx([0.001, 0.07, 0.5])
    assert float(space.log_scales["fine"].detach()) == pytest.approx(-math.log(0.07))


def test_adapters_of_two_dimensions_are_refused() -> None:
    with pytest.raises(FusemixError, match=r"need one dimension, not \{'a': 2, 'b': 3\}"):
        JointSpace({"a": LinearAdapter(2, 2), "b": LinearAdapter(2, 3)})


def test_unknown_modality_is_refused_with_the_nearest() -> None:
    with pytest.raises(FusemixError, match="has no 'images': did you mean 'image'"):
        make_space().encode("images", torch.ones(1, 6))


@pytest.mark.parametrize("shape", [(2, 7), (6,)])
def test_latents_of_another_dimension_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FusemixError, match=r"image latents of shape .* do not fit an adapter for dimension 6"):
        make_space().encode("image", torch.ones(shape))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_broken_latent_is_named_by_its_row(broken: float) -> None:
    latents = torch.ones(20, 4)
    latents[13, 2] = broken
    with pytest.raises(FusemixError, match="text embedding of row 13 is not finite"):
        make_space().encode("text", latents)


def test_latents_of_another_encoder_are_refused_by_the_fields_that_differ(tmp_path: Path) -> None:
    space = make_space(image=encoder("image", 6, pooling="cls"), text=encoder("text", 4))
    space.check_latents(latents_of(tmp_path, image=encoder("image", 6, pooling="cls"), text=encoder("text", 4)))
    other = latents_of(tmp_path, image=encoder("image", 6, pooling="mean"), text=encoder("text", 4))
    with pytest.raises(FusemixError, match=r"image adapter .*\(trained / given: pooling: 'cls' / 'mean'\)"):
        space.check_latents(other)


def test_latents_of_the_same_encoder_in_another_precision_are_taken(tmp_path: Path) -> None:
    space = make_space(image=encoder("image", 6), text=encoder("text", 4))
    space.check_latents(latents_of(tmp_path, image=encoder("image", 6, dtype="float16"), text=encoder("text", 4)))


def test_latents_that_lack_a_modality_of_the_space_are_compared_in_the_others(tmp_path: Path) -> None:
    space = make_space(image=encoder("image", 6, pooling="cls"), text=encoder("text", 4))
    space.check_latents(latents_of(tmp_path, image=encoder("image", 6, pooling="cls")))
    with pytest.raises(FusemixError, match="image adapter was trained for another encoder"):
        space.check_latents(latents_of(tmp_path, image=encoder("image", 6, pooling="mean")))


def test_a_folder_without_a_joint_space_is_told_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(FusemixError, match=r"no joint space in .*nowhere; train one with: fusemix fuse RECIPE"):
        JointSpace.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "adapters.safetensors"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, kept: float) -> None:
    make_space().save(tmp_path)
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: int(kept * len(raw))])
    with pytest.raises(FusemixError, match=r"cannot be read .* train it again"):
        JointSpace.load(tmp_path)


def test_a_missing_weights_file_is_refused(tmp_path: Path) -> None:
    make_space().save(tmp_path)
    (tmp_path / "adapters.safetensors").unlink()
    with pytest.raises(FusemixError, match="cannot be read"):
        JointSpace.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"adapters": []},
        {"adapters": {"image": {"kind": "linear", "input_dim": 6, "joint_dim": 5}}},
        {"adapters": {"image": "mlp"}},
        {"adapters": {"image": {"kind": "mlp", "width": 6}}},
        {"temperatures": None},
        {"encoders": {"image": {"name": "x"}}},
        {"format_version": "one"},
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    make_space().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(FusemixError, match="cannot be read"):
        JointSpace.load(tmp_path)


def test_a_newer_format_is_refused_with_the_remedy(tmp_path: Path) -> None:
    make_space().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"format_version": 99}))
    with pytest.raises(FusemixError, match=r"joint-space format 99; this fusemix reads up to 1: pip install -U"):
        JointSpace.load(tmp_path)


def test_fields_of_a_spec_that_a_newer_version_added_are_ignored(tmp_path: Path) -> None:
    make_space().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["encoders"]["image"]["colour"] = "red"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert JointSpace.load(tmp_path).specs["image"] == encoder("image", 6)
