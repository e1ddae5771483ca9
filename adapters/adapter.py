"""What all adapters share: standardised input, a config to save, and how to rebuild one from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fusemix.errors import FusemixError, nearest

RELATIVE_STD_OF_A_CONSTANT = 1e-7


class Adapter(nn.Module, ABC):
    """A head from latents (B, input_dim) to vectors (B, joint_dim), not normalised.

    Latents are standardised first, with statistics of the training split that travel with the weights as
    buffers.  An affine standardisation commutes with mixup, so mixing raw latents mixes standardised ones.

    Args:
        input_dim: dimension of the latents.
        joint_dim: dimension of the joint space.
        noise: standard deviation of the Gaussian noise that is added to the standardised latents while training.  As
            dropout does, it draws from torch's global generator.
    """

    kind: ClassVar[str]
    mean: Tensor
    inverse_std: Tensor

    def __init__(self, input_dim: int, joint_dim: int, noise: float = 0.0) -> None:
        super().__init__()
        self.input_dim, self.joint_dim, self.noise = input_dim, joint_dim, noise
        self.register_buffer("mean", torch.zeros(input_dim))
        self.register_buffer("inverse_std", torch.ones(input_dim))

    def config(self) -> dict[str, Any]:
        """Return what `build_adapter` needs to make an adapter of the same kind and shape."""
        return {"kind": self.kind, "input_dim": self.input_dim, "joint_dim": self.joint_dim, "noise": self.noise}

    @abstractmethod
    def project(self, standardised: Tensor) -> Tensor:
        """Map standardised latents (B, input_dim) to (B, joint_dim)."""

    def standardise_by(self, mean: Tensor, std: Tensor) -> None:
        """Set the statistics: (input_dim,) mean and standard deviation; dimensions that never vary keep scale 1."""
        varies = std > RELATIVE_STD_OF_A_CONSTANT * mean.abs()
        self.mean.copy_(mean)
        self.inverse_std.copy_(1 / torch.where(varies, std, 1.0))

    def forward(self, latents: Tensor) -> Tensor:
        """Return (B, joint_dim) for latents (B, input_dim)."""
        standardised = (latents.float() - self.mean) * self.inverse_std
        if self.training and self.noise > 0:
            standardised = standardised + self.noise * torch.randn_like(standardised)
        return self.project(standardised)


def build_adapter(config: Mapping[str, Any]) -> Adapter:
    """Make an adapter, its weights fresh, from what `Adapter.config` returned.

    Raises:
        FusemixError: for a kind of adapter that this version does not know, or a shape that it cannot have.
    """
    from .gated import GatedAdapter
    from .identity import IdentityAdapter
    from .linear import LinearAdapter
    from .mlp import MLPAdapter
    from .relative import RelativeAdapter

    known = (GatedAdapter, IdentityAdapter, LinearAdapter, MLPAdapter, RelativeAdapter)
    kinds = {adapter.kind: adapter for adapter in known}
    shape = dict(config)
    kind = str(shape.pop("kind"))
    if kind not in kinds:
        raise FusemixError(f"unknown adapter kind {kind!r}: {nearest(kind, kinds)}")
    return kinds[kind](**shape)
