"""The affine adapter: standardisation and one matrix.  Closed-form aligners such as ridge end in it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .adapter import Adapter


class AffineAdapter(Adapter):
    """y = W ((x - mean) / std).

    Args:
        input_dim: dimension of the latents.
        joint_dim: dimension of the joint space.
    """

    def __init__(self, input_dim: int, joint_dim: int) -> None:
        super().__init__(input_dim, joint_dim)
        self.linear = nn.Linear(input_dim, joint_dim, bias=False)

    def config(self) -> dict[str, Any]:
        """Return kind and shape."""
        return {"kind": "affine", "input_dim": self.input_dim, "joint_dim": self.joint_dim}

    def project(self, standardised: Tensor) -> Tensor:
        """Map standardised latents (B, input_dim) to (B, joint_dim)."""
        return self.linear(standardised)  # type: ignore[no-any-return]
