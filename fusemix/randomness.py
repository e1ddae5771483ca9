"""All randomness follows from (seed, purpose, step).

There is no generator state to save: a resumed run, another worker or a second pass over the same step derives
the same numbers from the same coordinates.
"""

from __future__ import annotations

from hashlib import blake2b

import torch


def derive_seed(*coordinates: int | str) -> int:
    """Return a 63-bit seed that is a stable hash of the coordinates, equal on every machine and version."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in coordinates)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*coordinates: int | str) -> torch.Generator:
    """Return a CPU generator seeded by the coordinates, for example `generator(seed, "order", epoch)`."""
    return torch.Generator().manual_seed(derive_seed(*coordinates))
