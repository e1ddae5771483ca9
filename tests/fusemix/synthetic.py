"""Small synthetic datasets whose modalities are nonlinear views of the same hidden factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import EncoderSpec

FACTORS, HIDDEN = 5, 32
TEXT_ROWS = 4


def encoder(modality: str = "image", dim: int = 4, **fields: Any) -> EncoderSpec:
    """Return the spec of an encoder that does not exist."""
    return EncoderSpec(**{"name": f"{modality}-net", "modality": modality, "dim": dim, "weights": "none", **fields})


def world(
    items: int = 300, modalities: Mapping[str, int] | None = None, seed: int = 0, missing: float = 0.1
) -> PairedLatents:
    """Return items of which 70 % are to train on, 20 % validate and 10 % test.

    Args:
        items: number of items.
        modalities: name -> dimension; `text` has one to four rows an item, the others one.
        seed: decides everything.
        missing: share of the items that lack a modality, a different one each time.
    """
    rng = np.random.default_rng(seed)
    dims = modalities or {"image": 24, "text": 16}
    names = [f"item{index:04d}" for index in range(items)]
    factors = rng.normal(size=(items, FACTORS))
    lacks = np.where(rng.random(items) < missing, rng.integers(len(dims), size=items), -1)
    latents, owners = {}, {}
    for number, (name, dim) in enumerate(dims.items()):
        counts = rng.integers(1, TEXT_ROWS + 1, items) if name == "text" else np.ones(items, np.int64)
        rows = rng.permutation(np.repeat(np.arange(items), np.where(lacks == number, 0, counts)))
        hidden = np.tanh(factors[rows] @ rng.normal(size=(FACTORS, HIDDEN)))
        values = hidden @ rng.normal(size=(HIDDEN, dim)) + 0.1 * rng.normal(size=(len(rows), dim))
        latents[name] = values.astype(np.float32)
        owners[name] = [names[row] for row in rows]
    parts = ["train"] * 7 + ["val"] * 2 + ["test"]
    splits = {name: parts[index % len(parts)] for index, name in enumerate(names)}
    return PairedLatents.from_arrays(latents, owners, splits)
