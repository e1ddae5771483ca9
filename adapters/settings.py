"""Settings of an adapter, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from fusemix.errors import FusemixError


@dataclass(frozen=True)
class AdapterSettings:
    """Shape of the inverted-bottleneck MLP adapter of each modality."""

    depth: int = 1
    """Number of residual blocks; 0 leaves a layer norm and a linear map."""
    expansion: int = 4
    """Width of a block's hidden layer, in multiples of the latent's dimension."""
    dropout: float = 0.6
    """Dropout after the activation of each block."""

    def __post_init__(self) -> None:
        for name, valid in (
            ("depth", self.depth >= 0),
            ("expansion", self.expansion >= 1),
            ("dropout", 0 <= self.dropout < 1),
        ):
            if not valid:
                bounds = {"depth": "at least 0", "expansion": "at least 1", "dropout": "in [0, 1)"}[name]
                raise FusemixError(f"fuse.adapter.{name} is {getattr(self, name)}: it must be {bounds}")
