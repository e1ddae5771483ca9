"""Encoders by name.  A name maps to `package.module:factory`, imported only when the encoder is made."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

import torch

from fusemix.errors import FusemixError, nearest

from .encoder import Encoder

ENTRY_POINT_GROUP = "fusemix.encoders"

_BUILT_IN = {
    "efficientnet-lite0": "fusemix.extract.encoders.efficientnet_lite:EfficientNetLite0",
    "minilm-l6-v2": "fusemix.extract.encoders.minilm:MiniLM",
}
_registered: dict[str, str] = {}


def register_encoder(name: str, target: str) -> None:
    """Make an encoder known by name in this process.

    Args:
        name: the name that recipes use.
        target: `package.module:factory`; the factory takes a `torch.device` and returns an `Encoder`.

    Raises:
        FusemixError: where the name is taken by another target.
    """
    known = _targets()
    if known.get(name, target) != target:
        raise FusemixError(f"the encoder name {name!r} is taken by {known[name]}; {target} needs another")
    _registered[name] = target


def encoder_names() -> list[str]:
    """Return the names of all encoders; imports none of them."""
    return sorted(_targets())


def encoder_target(name: str) -> str:
    """Return the `package.module:factory` behind a name.

    Raises:
        FusemixError: for an unknown name.
    """
    targets = _targets()
    if name not in targets:
        raise FusemixError(f"unknown encoder {name!r}: {nearest(name, targets)}")
    return targets[name]


def create_encoder(name: str, device: torch.device) -> Encoder:
    """Load an encoder.

    Raises:
        FusemixError: for an unknown name, or one that cannot be imported here.
    """
    target = encoder_target(name)
    module, _, factory = target.partition(":")
    try:
        make = getattr(import_module(module), factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise FusemixError(f"encoder {name!r} cannot be imported from {target!r}: {error}") from error
    encoder: Encoder = make(device)
    return encoder


def _targets() -> dict[str, str]:
    found = dict(_BUILT_IN)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if found.get(point.name, point.value) != point.value:
            raise FusemixError(f"the encoder name {point.name!r} is taken twice: {found[point.name]}, {point.value}")
        found[point.name] = point.value
    return {**found, **_registered}
