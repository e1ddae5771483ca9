"""The joint space: an adapter per modality, temperatures and biases, and the encoders that the adapters belong to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from fusemix.adapters.adapter import Adapter, build_adapter
from fusemix.errors import FusemixError, first_line, nearest
from fusemix.files import replacing
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import EncoderSpec, spec_from_dict

FORMAT_VERSION = 1
CONFIG, WEIGHTS = "config.json", "adapters.safetensors"
ROWS_AT_ONCE = 16384


class JointSpace(nn.Module):
    """Maps latents of any of its modalities to L2-normalised embeddings of one dimension.

    Args:
        adapters: modality -> adapter; all with the same `joint_dim`.
        temperatures: name -> initial temperature; an edge of an objective names the one it uses.
        specs: modality -> the encoder whose latents the adapter takes, where known.
        biases: name -> initial bias, of the edges with the sigmoid loss.

    Raises:
        FusemixError: where the adapters disagree on the dimension.
    """

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        temperatures: Mapping[str, float] | None = None,
        specs: Mapping[str, EncoderSpec | None] | None = None,
        biases: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        dims = {name: adapter.joint_dim for name, adapter in adapters.items()}
        if len(set(dims.values())) != 1:
            raise FusemixError(f"adapters of one joint space need one dimension, not {dims}")
        self.adapters = nn.ModuleDict(dict(adapters))
        self.log_scales = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(-math.log(tau))) for name, tau in (temperatures or {}).items()}
        )
        self.biases = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(float(bias))) for name, bias in (biases or {}).items()}
        )
        self.specs = dict(specs or {})

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities."""
        return list(self.adapters)

    @property
    def dim(self) -> int:
        """Dimension of the joint space."""
        return self.adapter(self.modalities[0]).joint_dim

    def adapter(self, modality: str) -> Adapter:
        """Return the adapter of a modality.

        Raises:
            FusemixError: where the space has none.
        """
        if modality not in self.adapters:
            raise FusemixError(f"the joint space has no {modality!r}: {nearest(modality, self.modalities)}")
        adapter = self.adapters[modality]
        assert isinstance(adapter, Adapter)  # noqa: S101  # ModuleDict forgets what it holds
        return adapter

    def temperature(self, name: str) -> float:
        """Return a temperature."""
        return math.exp(-float(self.log_scales[name].detach()))

    def clamp_temperatures(self, lowest: float, highest: float) -> None:
        """Keep every temperature in [lowest, highest]; called after each step of the optimiser."""
        with torch.no_grad():
            for log_scale in self.log_scales.values():
                log_scale.clamp_(-math.log(highest), -math.log(lowest))

    def forward(self, modality: str, latents: Tensor) -> Tensor:
        """Return (B, dim) float32 L2-normalised embeddings of (B, D) latents."""
        return nn.functional.normalize(self.adapter(modality)(latents).float(), dim=-1)

    @torch.inference_mode()
    def encode(self, modality: str, latents: Tensor) -> Tensor:
        """Return embeddings on the CPU without dropout or gradients, (N, dim) float32, in memory-bounded steps.

        Raises:
            FusemixError: where the latents are of another dimension, or an embedding is not finite.
        """
        adapter = self.adapter(modality)
        if latents.ndim != 2 or latents.shape[1] != adapter.input_dim:
            raise FusemixError(
                f"{modality} latents of shape {tuple(latents.shape)} do not fit an adapter for dimension"
                f" {adapter.input_dim}: use the encoder that the joint space was trained with"
            )
        training, device = self.training, adapter.mean.device
        self.eval()
        try:
            parts = [self(modality, part.to(device)).cpu() for part in latents.split(ROWS_AT_ONCE)]
        finally:
            self.train(training)
        embeddings = torch.cat(parts) if parts else torch.empty(0, self.dim)
        bad = (~torch.isfinite(embeddings).all(dim=1)).nonzero()
        if len(bad):
            raise FusemixError(f"{modality} embedding of row {int(bad[0])} is not finite: its latent is broken")
        return embeddings

    def check_latents(self, latents: PairedLatents) -> None:
        """Refuse latents of other encoders than the adapters were trained for; their precision may differ.

        Raises:
            FusemixError: naming modality and the fields of the encoder spec that differ.
        """
        for modality, of in latents.modalities.items():
            trained, given = self.specs.get(modality), of.spec
            if trained is not None and given is not None and not trained.is_same_encoder(given):
                raise FusemixError(
                    f"the {modality} adapter was trained for another encoder than these latents come from"
                    f" (trained / given: {trained.differences(given)}); use the latents of the run's encoders, or"
                    " train a new run"
                )

    def save(self, folder: Path | str) -> None:
        """Write `config.json` and `adapters.safetensors`; each is replaced at once."""
        folder = Path(folder)
        config = {
            "format_version": FORMAT_VERSION,
            "adapters": {name: self.adapter(name).config() for name in self.modalities},
            "temperatures": list(self.log_scales),
            "biases": list(self.biases),
            "encoders": {name: spec and asdict(spec) for name, spec in self.specs.items()},
        }
        with replacing(folder / CONFIG) as path:
            path.write_text(json.dumps(config, indent=2) + "\n")
        with replacing(folder / WEIGHTS) as path:
            # Written by Python, because the library's own writer reports a full disk as a broken file.
            path.write_bytes(to_bytes({key: value.contiguous().cpu() for key, value in self.state_dict().items()}))

    @classmethod
    def load(cls, folder: Path | str) -> JointSpace:
        """Read what `save` wrote, in evaluation mode on the CPU.

        Raises:
            FusemixError: where the folder holds no joint space, a broken one, or one of a newer format.
        """
        folder = Path(folder)
        if not (folder / CONFIG).is_file():
            raise FusemixError(f"no joint space in {folder}; train one with: fusemix fuse RECIPE")
        try:
            config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
            if config["format_version"] > FORMAT_VERSION:
                raise FusemixError(
                    f"{folder} has joint-space format {config['format_version']}; this fusemix reads up to"
                    f" {FORMAT_VERSION}: pip install -U fusemix"
                )
            space = cls(
                {name: build_adapter(shape) for name, shape in config["adapters"].items()},
                dict.fromkeys(config["temperatures"], 1.0),
                {name: spec and spec_from_dict(spec) for name, spec in config["encoders"].items()},
                # Spaces were saved without them before there was the sigmoid loss.
                dict.fromkeys(config.get("biases", ()), 0.0),
            )
            space.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise FusemixError(
                f"the joint space in {folder} cannot be read ({first_line(error)}); train it again"
            ) from error
        return space.eval()
