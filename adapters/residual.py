"""What the adapters made of residual blocks share; they differ in the block."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from .adapter import Adapter


class ResidualAdapter(Adapter):
    """`depth` residual blocks, then a layer norm and a linear map to the joint space.

    Args:
        input_dim: dimension of the latents.
        joint_dim: dimension of the joint space.
        depth: number of blocks; with 0 only the layer norm and the linear map remain.
        expansion: width of a block's hidden layer, in multiples of `input_dim`.
        dropout: probability, in each block's hidden layer.
        noise: standard deviation of the noise on standardised latents while training.
    """

    def __init__(
        self,
        input_dim: int,
        joint_dim: int,
        depth: int = 1,
        expansion: int = 4,
        dropout: float = 0.6,
        noise: float = 0.0,
    ) -> None:
        super().__init__(input_dim, joint_dim, noise)
        self.depth, self.expansion, self.dropout = depth, expansion, dropout
        self.blocks = nn.Sequential(
            *(self.block() for _ in range(depth)),
            nn.LayerNorm(input_dim),
            nn.Linear(input_dim, joint_dim),
        )

    @abstractmethod
    def block(self) -> nn.Module:
        """Return a fresh block from (B, input_dim) to the same shape."""

    def config(self) -> dict[str, Any]:
        """Return kind and shape."""
        return {**super().config(), "depth": self.depth, "expansion": self.expansion, "dropout": self.dropout}

    def project(self, standardised: Tensor) -> Tensor:
        """Map standardised latents (B, input_dim) to (B, joint_dim)."""
        return self.blocks(standardised)  # type: ignore[no-any-return]
