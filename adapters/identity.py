"""The identity adapter: the joint space is the modality's own latent space, and other modalities come to it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fusemix.errors import FusemixError

from .adapter import Adapter


class IdentityAdapter(Adapter):
    """The latents as they are, neither standardised nor projected.

    So LiT (arXiv 2111.07991) and ImageBind (arXiv 2305.05665) lock a tower, and so others are brought into the
    conditioning space of a frozen generator.  It has no parameters; its statistics stay at mean 0 and deviation 1.

    Args:
        input_dim: dimension of the latents.
        joint_dim: dimension of the joint space, the same.

    Raises:
        FusemixError: where it is another.
    """

    kind = "identity"

    def __init__(self, input_dim: int, joint_dim: int) -> None:
        if joint_dim != input_dim:
            raise FusemixError(
                f"an identity adapter keeps the dimension of its latents, {input_dim}, but the joint space has"
                f" {joint_dim}: set fuse.joint_dim to {input_dim}, or choose another kind of adapter"
            )
        super().__init__(input_dim, joint_dim)

    def config(self) -> dict[str, Any]:
        """Return kind and shape."""
        return {"kind": self.kind, "input_dim": self.input_dim, "joint_dim": self.joint_dim}

    def standardise_by(self, mean: Tensor, std: Tensor) -> None:
        """Do nothing: the latents stay as they are."""

    def project(self, standardised: Tensor) -> Tensor:
        """Return the latents (B, input_dim)."""
        return standardised
