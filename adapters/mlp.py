"""The inverted-bottleneck MLP adapter of FuseMix (arXiv 2312.10144, section 5.1)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .adapter import Adapter


class InvertedBottleneck(nn.Module):
    """A residual block x + W2 dropout(gelu(W1 norm(x))) whose hidden layer is wider than x.

    Args:
        dim: width of x.
        expansion: width of the hidden layer, in multiples of `dim`.
        dropout: probability, after the activation.
    """

    def __init__(self, dim: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, expansion * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(expansion * dim, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x, (B, dim)."""
        return x + self.residual(x)  # type: ignore[no-any-return]


class MLPAdapter(Adapter):
    """`depth` inverted-bottleneck blocks, then a layer norm and a linear map to the joint space.

    Args:
        input_dim: dimension of the latents.
        joint_dim: dimension of the joint space.
        depth: number of blocks; with 0 only the layer norm and the linear map remain.
        expansion: width of a block's hidden layer, in multiples of `input_dim`.
        dropout: probability, after each block's activation.
    """

    def __init__(
        self, input_dim: int, joint_dim: int, depth: int = 1, expansion: int = 4, dropout: float = 0.6
    ) -> None:
        super().__init__(input_dim, joint_dim)
        self.depth, self.expansion, self.dropout = depth, expansion, dropout
        self.blocks = nn.Sequential(
            *(InvertedBottleneck(input_dim, expansion, dropout) for _ in range(depth)),
            nn.LayerNorm(input_dim),
            nn.Linear(input_dim, joint_dim),
        )

    def config(self) -> dict[str, Any]:
        """Return kind and shape."""
        return {
            "kind": "mlp",
            "input_dim": self.input_dim,
            "joint_dim": self.joint_dim,
            "depth": self.depth,
            "expansion": self.expansion,
            "dropout": self.dropout,
        }

    def project(self, standardised: Tensor) -> Tensor:
        """Map standardised latents (B, input_dim) to (B, joint_dim)."""
        return self.blocks(standardised)  # type: ignore[no-any-return]
