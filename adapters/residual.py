"""What the adapters made of residual blocks share; they differ in the block.

A block's weights grow with the square of its width.  Latents of several encoders, concatenated, are so long that the
blocks would have more weights than there is data for, and cost more than all the rest: a linear map narrows them.
"""

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
        expansion: width of a block's hidden layer, in multiples of the block's.
        dropout: probability, in each block's hidden layer.
        noise: standard deviation of the noise on standardised latents while training.
        max_width: longer latents are taken to so many dimensions by a linear map before the blocks, which then are as
            wide as that; None leaves latents of any length as they are.
    """

    def __init__(
        self,
        input_dim: int,
        joint_dim: int,
        depth: int = 1,
        expansion: int = 4,
        dropout: float = 0.6,
        noise: float = 0.0,
        max_width: int | None = None,
    ) -> None:
        super().__init__(input_dim, joint_dim, noise)
        self.depth, self.expansion, self.dropout = depth, expansion, dropout
        self.max_width = max_width
        self.width = min(input_dim, max_width or input_dim)
        self.narrow = nn.Linear(input_dim, self.width) if self.width < input_dim else None
        self.blocks = nn.Sequential(
            *(self.block() for _ in range(depth)),
            nn.LayerNorm(self.width),
            nn.Linear(self.width, joint_dim),
        )

    @abstractmethod
    def block(self) -> nn.Module:
        """Return a fresh block from (B, width) to the same shape."""

    def config(self) -> dict[str, Any]:
        """Return kind and shape."""
        shape = {"depth": self.depth, "expansion": self.expansion, "dropout": self.dropout}
        return {**super().config(), **shape, "max_width": self.max_width}

    def project(self, standardised: Tensor) -> Tensor:
        """Map standardised latents (B, input_dim) to (B, joint_dim)."""
        # The blocks' sums keep the latents' float32, whatever type autocast multiplies in.
        x = standardised if self.narrow is None else self.narrow(standardised).to(standardised.dtype)
        return self.blocks(x)  # type: ignore[no-any-return]
