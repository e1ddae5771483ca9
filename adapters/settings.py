"""Settings of an adapter, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf
from typing import Any, Literal

from fusemix.errors import FusemixError, nearest

# What each kind has a use for; the rest must be left at its default.
USED_BY = {
    "mlp": ("depth", "expansion", "dropout", "noise", "max_width"),
    "gated": ("depth", "expansion", "dropout", "noise", "max_width"),
    "linear": ("noise",),
    "identity": (),
}


@dataclass(frozen=True)
class AdapterSettings:
    """Kind and shape of an adapter."""

    kind: Literal["mlp", "gated", "linear", "identity"] = "mlp"
    """`mlp`, FuseMix's inverted bottlenecks; `gated`, the same with SwiGLU; `linear`, one matrix; or `identity`, the
    latents themselves, neither standardised nor trained, as an anchor that the others come to."""
    depth: int = 1
    """Number of residual blocks; 0 leaves a layer norm and a linear map."""
    expansion: int = 4
    """Width of a block's hidden layer, in multiples of the block's own: the latent's dimension, unless max_width is
    less."""
    dropout: float = 0.6
    """Dropout in the hidden layer of each block."""
    noise: float = 0.0
    """Standard deviation of the Gaussian noise that is added to the standardised latents while training."""
    max_width: int | None = None
    """Width of the blocks at most: longer latents, such as those of several encoders concatenated, are first taken to
    so many dimensions by a linear map.  No limit if left out."""

    def __post_init__(self) -> None:
        if self.kind not in USED_BY:
            raise FusemixError(f"unknown adapter kind {self.kind!r}: {nearest(self.kind, USED_BY)}")
        for name, (valid, bounds) in {
            "depth": (self.depth >= 0, "at least 0"),
            "expansion": (self.expansion >= 1, "at least 1"),
            "dropout": (0 <= self.dropout < 1, "in [0, 1)"),
            "noise": (0 <= self.noise < inf, "finite and at least 0"),
            "max_width": (self.max_width is None or self.max_width >= 1, "at least 1"),
        }.items():
            if not valid:
                raise FusemixError(f"adapter setting {name} is {getattr(self, name)}: it must be {bounds}")
        for field in fields(self):
            given = getattr(self, field.name)
            if field.name not in ("kind", *USED_BY[self.kind]) and given != field.default:
                raise FusemixError(
                    f"adapter setting {field.name} is {given}, but an adapter of kind {self.kind} has no use for it:"
                    " leave it out"
                )

    def config(self, input_dim: int, joint_dim: int) -> dict[str, Any]:
        """Return what `build_adapter` needs to make the adapter for latents of a dimension."""
        used = {name: getattr(self, name) for name in USED_BY[self.kind]}
        return {"kind": self.kind, "input_dim": input_dim, "joint_dim": joint_dim, **used}
