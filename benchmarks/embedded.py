"""Embeddings of all rows of a modality, in memory where there is room, else made when they are asked for.

A gallery of ten million rows takes 20 GB as embeddings, and its latents may lie in a file for the same reason.  Ranks
read such a side block by block, so the rest of a benchmark need not know where it is.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fusemix.free_memory import free_memory
from fusemix.joint_space import ROWS_AT_ONCE, JointSpace
from fusemix.latents.paired import ModalityLatents, PairedLatents

SHARE_OF_FREE = 0.5
"""How much of the memory that is free embeddings may fill."""


class EmbeddedRows:
    """Rows of a modality that pass through its adapter whenever they are read.

    Args:
        space: has the adapter.
        modality: its name.
        latents: of the modality, in memory or in their file.
        rows: (N,) which of them; all that belong to items if left out.
    """

    def __init__(
        self, space: JointSpace, modality: str, latents: ModalityLatents, rows: Tensor | None = None
    ) -> None:
        self._space, self._modality, self._latents = space, modality, latents
        self._rows = latents.rows if rows is None else rows
        self._device = space.adapter(modality).mean.device

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, chosen: Tensor) -> EmbeddedRows:
        """Return some of the rows, by a mask or by their places, still to be embedded."""
        return EmbeddedRows(self._space, self._modality, self._latents, self._rows[chosen])

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows `start` to `stop`, (stop - start, dim) float32, where the joint space lies.

        Raises:
            FusemixError: where the file of the latents has been cut short, or an embedding is not finite.
        """
        mapped, rows = self._latents.mapped, self._rows[start:stop]
        if mapped is not None:
            mapped.check()
        embedded = self._space.encode(self._modality, self._latents.values[rows]).to(self._device)
        if mapped is not None:
            mapped.release()
        return embedded


def embed_rows(
    space: JointSpace, latents: PairedLatents, modalities: Iterable[str]
) -> dict[str, Tensor | EmbeddedRows]:
    """Embed all rows of each modality, once where they fit into memory; they lie where the space does.

    Raises:
        FusemixError: where the latents are of other encoders than the space was trained for.
    """
    space.check_latents(latents)
    sources = {name: EmbeddedRows(space, name, latents[name]) for name in modalities}
    embedded: dict[str, Tensor | EmbeddedRows] = {}
    # The smaller side first: ranks read one in a file once for each block of the other.
    for name, source in sorted(sources.items(), key=lambda named: len(named[1])):
        room = SHARE_OF_FREE * free_memory(space.adapter(name).mean.device)
        embedded[name] = _held(source) if 4 * space.dim * len(source) <= room else source
    return embedded


def _held(source: EmbeddedRows) -> Tensor:
    """Return all rows, of whose latents never more than some are in memory."""
    starts = range(0, max(len(source), 1), ROWS_AT_ONCE)
    return torch.cat([source.rows(start, start + ROWS_AT_ONCE) for start in starts])


def read(embeddings: Tensor | EmbeddedRows, places: Tensor) -> Tensor:
    """Return the embeddings at some places, (n, dim)."""
    return embeddings[places] if isinstance(embeddings, Tensor) else embeddings[places].rows(0, len(places))
