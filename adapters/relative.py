"""The relative adapter: an embedding tells how alike a latent and each of the training items are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .adapter import Adapter


class RelativeAdapter(Adapter):
    """Cosines to the anchors, the largest of them raised to a power and the others 0 (ASIF, arXiv 2210.01738).

    Nothing of it is trained: the anchors are the latents of known items, in the same order in each modality, so that
    latents of two modalities are alike where they are like the same items.

    Args:
        input_dim: dimension of the latents.
        joint_dim: number of anchors, the dimension of the joint space.
        neighbours: number of anchors that count, the most similar ones; those of a negative cosine never do.
        power: exponent of their cosines.
    """

    kind = "relative"
    anchors: Tensor

    def __init__(self, input_dim: int, joint_dim: int, neighbours: int, power: float) -> None:
        super().__init__(input_dim, joint_dim)
        self.neighbours, self.power = neighbours, power
        self.register_buffer("anchors", torch.zeros(joint_dim, input_dim))

    def config(self) -> dict[str, Any]:
        """Return kind and shape."""
        shape = {"kind": self.kind, "input_dim": self.input_dim, "joint_dim": self.joint_dim}
        return {**shape, "neighbours": self.neighbours, "power": self.power}

    def compare_with(self, latents: Tensor) -> None:
        """Set the anchors: (joint_dim, input_dim) latents, after the statistics, with which they are standardised."""
        self.anchors.copy_(normalize((latents.float() - self.mean) * self.inverse_std, dim=-1))

    def project(self, standardised: Tensor) -> Tensor:
        """Map standardised latents (B, input_dim) to (B, joint_dim)."""
        # Not yet divided by the length of the latent, which drops out below.
        cosines = (standardised @ self.anchors.T).clamp_min(0)
        largest, places = cosines.topk(min(self.neighbours, self.joint_dim), dim=-1)
        # An embedding has no length, and relative to the largest one no power is too small for float32.
        relative = largest / largest[:, :1].clamp_min(torch.finfo(largest.dtype).tiny)
        return torch.zeros_like(cosines).scatter(-1, places, relative.pow(self.power))
