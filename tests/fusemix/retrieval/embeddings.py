"""Embeddings that are hard to rank, and sources that give them some rows at a time."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(seed: int, *shape: int) -> Tensor:
    return torch.nn.functional.normalize(normal(seed, *shape), dim=1)


def random_pairs(seed: int, queries: int, gallery: int, chance: float) -> Tensor:
    """Pairs that leave some queries without any positive and give others several."""
    return (torch.rand(queries, gallery, generator=torch.Generator().manual_seed(seed)) < chance).nonzero()


def diagonal(size: int) -> Tensor:
    return torch.arange(size)[:, None].repeat(1, 2)


def clustered() -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings with duplicates and near-ties everywhere."""
    centres = unit(0, 6, 40)
    queries = centres[torch.arange(45) % 6] + 1e-7 * normal(1, 45, 40)
    gallery = centres[torch.arange(70) % 6]
    gallery[::2] += 1e-7 * normal(2, 35, 40)
    return queries, gallery, random_pairs(3, 45, 70, 0.03)


def near_copies(queries: int, gallery: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings in narrow clusters, and some positives inside of each: few scores matter, but they nearly tie."""
    centres = unit(0, 10, 40)
    clusters = [torch.arange(rows) * 10 // rows for rows in (queries, gallery)]
    noisy = [centres[of] + 1e-7 * normal(seed, len(of), 40) for seed, of in enumerate(clusters, 1)]
    together = clusters[0][:, None] == clusters[1]
    drawn = torch.rand(queries, gallery, generator=torch.Generator().manual_seed(3)) < 0.1
    return noisy[0], noisy[1], (together & drawn).nonzero()


def set_group(monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    for name in ("comparison", "tiles", "counting", "shortlist"):
        monkeypatch.setattr(sys.modules[f"fusemix.retrieval.{name}"], "GROUP", group)


def set_tile(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setattr(sys.modules["fusemix.retrieval.comparison"], "TILE", tile)


class Read:
    """Embeddings that are given some rows at a time, and which rows were asked for."""

    def __init__(self, embeddings: Tensor) -> None:
        self._embeddings = embeddings
        self.asked: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._embeddings)

    def rows(self, start: int, stop: int) -> Tensor:
        self.asked.append((start, stop))
        return self._embeddings[start:stop].clone()
