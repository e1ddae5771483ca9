"""The linear adapter: standardisation and one matrix, as Synergy-CLIP's heads.  Closed-form aligners end in it."""

from __future__ import annotations

from torch import Tensor, nn

from .adapter import Adapter


class LinearAdapter(Adapter):
    """y = W ((x - mean) / std).

    Args:
        input_dim: dimension of the latents.
        joint_dim: dimension of the joint space.
        noise: standard deviation of the noise on standardised latents while training.
    """

    kind = "linear"

    def __init__(self, input_dim: int, joint_dim: int, noise: float = 0.0) -> None:
        super().__init__(input_dim, joint_dim, noise)
        self.linear = nn.Linear(input_dim, joint_dim, bias=False)

    def project(self, standardised: Tensor) -> Tensor:
        """Map standardised latents (B, input_dim) to (B, joint_dim)."""
        return self.linear(standardised)  # type: ignore[no-any-return]
