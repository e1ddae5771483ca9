"""Trainable heads that map the latents of one encoder into the joint space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusemix.lazy import lazy_exports

if __name__ != "fusemix.adapters":
    raise ImportError("this folder is the package fusemix.adapters: import fusemix.adapters")

if TYPE_CHECKING:
    from .adapter import Adapter, build_adapter
    from .gated import GatedAdapter
    from .identity import IdentityAdapter
    from .linear import LinearAdapter
    from .mlp import MLPAdapter
    from .relative import RelativeAdapter
    from .settings import AdapterSettings

__all__ = [
    "Adapter",
    "AdapterSettings",
    "GatedAdapter",
    "IdentityAdapter",
    "LinearAdapter",
    "MLPAdapter",
    "RelativeAdapter",
    "build_adapter",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Adapter": "adapter",
        "AdapterSettings": "settings",
        "GatedAdapter": "gated",
        "IdentityAdapter": "identity",
        "LinearAdapter": "linear",
        "MLPAdapter": "mlp",
        "RelativeAdapter": "relative",
        "build_adapter": "adapter",
    },
)
