"""The gated adapter: SwiGLU (arXiv 2002.05202, eq. 6) in the place of the MLP adapter's hidden layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import silu

from .residual import ResidualAdapter


class GatedBottleneck(nn.Module):
    """A residual block x + W2 dropout(silu(W1 norm(x)) * W3 norm(x)) whose hidden layer is wider than x.

    At the same width it has half as many weights again as the MLP's block.  Biases are there as in that block, though
    the paper has none.

    Args:
        dim: width of x.
        expansion: width of the hidden layer, in multiples of `dim`.
        dropout: probability, after the gate.
    """

    def __init__(self, dim: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        # W1 and W3 in one matrix, so that one GEMM serves both.
        self.gate_and_value = nn.Linear(dim, 2 * expansion * dim)
        self.dropout = nn.Dropout(dropout)
        self.narrow = nn.Linear(expansion * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x, (B, dim)."""
        gate, value = self.gate_and_value(self.norm(x)).chunk(2, dim=-1)
        return x + self.narrow(self.dropout(silu(gate) * value))  # type: ignore[no-any-return]


class GatedAdapter(ResidualAdapter):
    """Gated blocks, then a layer norm and a linear map; arguments as in `ResidualAdapter`."""

    kind = "gated"

    def block(self) -> nn.Module:
        """Return a fresh block."""
        return GatedBottleneck(self.width, self.expansion, self.dropout)
