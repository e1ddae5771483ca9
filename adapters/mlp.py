"""The inverted-bottleneck MLP adapter of FuseMix (arXiv 2312.10144, section 5.1)."""

from __future__ import annotations

from torch import Tensor, nn

from .residual import ResidualAdapter


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


class MLPAdapter(ResidualAdapter):
    """Inverted bottlenecks, then a layer norm and a linear map; arguments as in `ResidualAdapter`."""

    kind = "mlp"

    def block(self) -> nn.Module:
        """Return a fresh block."""
        return InvertedBottleneck(self.width, self.expansion, self.dropout)
