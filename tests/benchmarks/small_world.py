"""A small data set whose modalities show the same hidden factors, and a joint space that leaves latents alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fusemix.adapters import LinearAdapter
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import EncoderSpec

FACTORS = 4


def small_world(
    train: int = 40,
    val: int = 15,
    test: int = 25,
    *,
    dims: tuple[int, int] = (6, 6),
    noise: float = 0.3,
    seed: int = 0,
) -> PairedLatents:
    """Return items with zero to two pictures and one to three captions each; some captions are shared."""
    rng = np.random.default_rng(seed)
    ids = [f"item{index:03}" for index in range(train + val + test)]
    splits = dict(zip(ids, ["train"] * train + ["val"] * val + ["test"] * test, strict=True))
    hidden = rng.normal(size=(len(ids), FACTORS))
    counts = {"image": rng.choice([0, 1, 1, 1, 2], len(ids)), "text": rng.choice([1, 2, 3], len(ids))}
    latents, items = {}, {}
    for (modality, count), dim in zip(counts.items(), dims, strict=True):
        rows = np.repeat(np.arange(len(ids)), count)
        values = hidden[rows] @ rng.normal(size=(FACTORS, dim)) + noise * rng.normal(size=(len(rows), dim))
        latents[modality] = (1 + 2 * values).astype(np.float32)
        items[modality] = [ids[row] for row in rows]
    captions = [f"caption {row}" for row in range(len(items["text"]))]
    for row in range(7, len(captions), 7):
        captions[row], latents["text"][row] = captions[row - 4], latents["text"][row - 4]
    return PairedLatents.from_arrays(latents, items, splits, sources={"text": captions}, dataset="small")


def identity_space(dim: int = 6, specs: dict[str, EncoderSpec | None] | None = None) -> JointSpace:
    """Return the joint space whose embeddings are the normalised latents."""
    adapters = {modality: LinearAdapter(dim, dim) for modality in ("image", "text")}
    for adapter in adapters.values():
        torch.nn.init.eye_(adapter.linear.weight)
    return JointSpace(adapters, specs=specs)


def encoded_by(latents: PairedLatents, name: str) -> PairedLatents:
    """Return the latents with provenance: an encoder called `name` for each modality."""
    modalities = {
        modality: replace(of, spec=EncoderSpec(name=name, modality=modality, dim=of.values.shape[1], weights="none"))
        for modality, of in latents.modalities.items()
    }
    return replace(latents, modalities=modalities)
