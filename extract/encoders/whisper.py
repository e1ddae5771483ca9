"""Whisper's encoder through transformers: sounds -> the mean of what it says of every 20 ms, or some statistics.

Whisper always takes 30 seconds and ignores any mask of the padding.  So the mean here is over the frames that stand
for sound, of all windows alike; the padding is seen by the network, as it was in training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from fusemix.errors import FusemixError, needs_extra
from fusemix.latents.provenance import EncoderSpec

from ..catalogue import CATALOGUE
from ..checkpoints import check_dim, explaining_load_errors, load_safetensors
from ..sound_windows import SoundWindows, WhisperLogMel
from ..weights import weights_files, weights_folder, weights_sha256
from ..window_batch import FRAME_POOLINGS, WindowEncoder

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

# The two convolutions of the encoder take every second frame.
FRAMES_PER_OUTPUT = 2


def whisper_windows(extractor: WhisperFeatureExtractor, samples: int) -> SoundWindows:
    """Return what reads sounds as a feature extractor of Whisper does, in windows of so many samples."""
    features = WhisperLogMel(extractor.mel_filters, extractor.hop_length, samples)
    return SoundWindows(extractor.sampling_rate, samples, FRAMES_PER_OUTPUT * extractor.hop_length, features)


class Whisper(WindowEncoder):
    """Sounds -> 384 to 1,280 numbers, by size: hidden states of the encoder, averaged over the valid frames.

    With `pooling: statistics`, five times as many: see `statistics_of_valid`.

    Args:
        device: where the network runs.
        name: which size, `whisper-tiny` to `whisper-large-v3`.
        weights: folder of the checkpoint.
        layer: `final`, after the last norm, or `-2`, what the last but one block gives, without a norm.
        pooling: what becomes of the frames.

    Raises:
        FusemixError: where packages or weights are missing, or the folder holds another model.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        name: str = "whisper-base",
        weights: str | None = None,
        layer: Literal["final", "-2"] = "final",
        pooling: Literal["mean", "statistics"] = "mean",
    ) -> None:
        entry = CATALOGUE[name]
        with needs_extra(entry.extra, f"encoder {name}"):
            from transformers import AutoConfig, WhisperFeatureExtractor
            from transformers.models.whisper.modeling_whisper import WhisperEncoder
        folder = weights_folder(name, entry.weights, weights, extra=entry.extra)
        with explaining_load_errors(name, folder):
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            if config.model_type != "whisper":
                raise FusemixError(f"encoder {name!r}: {folder} holds a model of type {config.model_type!r}")
            check_dim(config.d_model, entry, folder)
            extractor = WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
            frames = FRAMES_PER_OUTPUT * config.max_source_positions
            if (extractor.feature_size, extractor.nb_max_frames) != (config.num_mel_bins, frames):
                raise FusemixError(f"the feature extractor in {folder} does not belong to its model")
            with torch.device("meta"):
                network = WhisperEncoder(config)
            load_safetensors(network, weights_files(folder, name))
        if layer == "-2":
            del network.layers[-1]
            network.register_module("layer_norm", nn.Identity())
        super().__init__(whisper_windows(extractor, extractor.n_samples), 4 if device.type == "cpu" else 64)
        self._pooling = FRAME_POOLINGS[pooling]
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = device
        self.spec = EncoderSpec(
            name=name,
            modality="audio",
            dim=config.d_model * self._pooling.parts,
            weights=entry.weights,
            sha256=weights_sha256(folder, name),
            layer=layer,
            pooling=self._pooling.description,
            preprocessing=self.preprocess.description,
        )

    def encode_windows(self, windows: Tensor, valid: Tensor) -> Tensor:
        """Return (w, dim) from (w, bands, frames)."""
        return self._pooling.pool(self._network(windows.to(self._device)).last_hidden_state, valid)
