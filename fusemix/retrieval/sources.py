"""Embeddings in memory, or read some rows at a time.

Ranks need each side as float32 numbers of moderate size, a block of rows at a time.  A tensor gives views of itself;
a source of any other kind, such as latents in a file that pass through an adapter, is asked for the rows of a block
when the block's turn comes, so that a gallery need not fit into memory.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from fusemix.errors import FusemixError

MODERATE_EXPONENT = 16


class EmbeddingSource(Protocol):
    """Embeddings that are read, or made, some rows at a time."""

    def __len__(self) -> int:
        """Return how many rows there are."""
        ...

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows `start` to `stop`, (stop - start, d).

        Rows are asked for several times, always in the same blocks, and have the same numbers each time.
        """
        ...


Embeddings = Tensor | EmbeddingSource


class _InMemory:
    def __init__(self, embeddings: Tensor) -> None:
        self._embeddings = embeddings

    def __len__(self) -> int:
        return len(self._embeddings)

    def rows(self, start: int, stop: int) -> Tensor:
        return self._embeddings[start:stop]


class Blocks:
    """One side's embeddings as blocks of float32 rows whose largest norm is near 1, so that no score overflows.

    They are scaled by a power of two, which changes no comparison, and only where they need it.

    Args:
        name: what an error calls a row of them.
        embeddings: (rows, d) of any floating-point type.
        size: rows of a block.

    Raises:
        FusemixError: where an embedding is not finite.
        ValueError: where rows do not have the shape (rows, d).
    """

    def __init__(self, name: str, embeddings: Embeddings, size: int) -> None:
        self._name = name
        self._source = _InMemory(embeddings) if isinstance(embeddings, Tensor) else embeddings
        self._held: tuple[int, Tensor] | None = None
        self.rows, self.size = len(self._source), size
        self.exponent = 0
        first = self.block(0)
        self.dim, self.device = first.shape[1], first.device
        self.largest_norm = self._largest_norm()
        # An infinite or NaN number makes the norm so too, and numbers far from 1 make it far from 1.
        if not math.isfinite(self.largest_norm) or abs(math.frexp(self.largest_norm)[1]) > MODERATE_EXPONENT:
            self.exponent, self._held = math.frexp(self._largest_number())[1], None
            self.largest_norm = self._largest_norm()

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def block(self, number: int) -> Tensor:
        """Return the rows of a block, (at most `size`, d) float32; the last one asked for is held."""
        if self._held is None or self._held[0] != number:
            # Let go of the old block before there is a new one.
            self._held = None
            rows = self._read(number)
            if self.exponent:
                rows = torch.ldexp(rows.double(), torch.tensor(-self.exponent, device=rows.device))
            self._held = number, rows.float()
        return self._held[1]

    def _read(self, number: int) -> Tensor:
        start = number * self.size
        stop = min(start + self.size, self.rows)
        rows = self._source.rows(start, stop).detach()
        if rows.ndim != 2 or len(rows) != stop - start:
            raise ValueError(
                f"{self._name} embeddings {start} to {stop} must be ({stop - start}, d), not {tuple(rows.shape)}"
            )
        return rows

    def _largest_norm(self) -> float:
        norms = [self.block(number).norm(dim=1).max() for number in range(len(self))]
        # A sum of zeros would leave no unit to measure a tie in.
        return (float(torch.stack(norms).max()) if norms else 0.0) or 1.0

    def _largest_number(self) -> float:
        largest = 0.0
        for number in range(len(self)):
            rows = self._read(number)
            of_block = float(rows.abs().max())
            if not math.isfinite(of_block):
                bad = number * self.size + int((~torch.isfinite(rows).all(dim=1)).nonzero()[0])
                raise FusemixError(f"{self._name} embedding {bad} is not finite: no rank can be given")
            largest = max(largest, of_block)
        return largest
