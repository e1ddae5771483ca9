"""`ranks` of both directions beside the bare tiled GEMM, on embeddings as good as a published model's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix.retrieval.metrics import recall_at
from fusemix.retrieval.ranks import ranks
from fusemix.retrieval.tiles import TILE

from .measure import in_turn

DIM, CAPTIONS = 512, 5
SIGNAL = 0.16


def bare_gemm(queries: Tensor, gallery: Tensor) -> Callable[[], None]:
    """Return a function that computes all scores tile by tile and keeps none."""
    buffer = torch.empty(TILE * TILE)

    def run() -> None:
        columns = [part.t() for part in gallery.split(TILE)]
        for rows in queries.split(TILE):
            for column in columns:
                torch.mm(rows, column, out=buffer[: len(rows) * column.shape[1]].view(len(rows), -1))

    return run


def run(*, quick: bool) -> dict[str, object]:
    """Measure, print the ratio, and return it."""
    size = 200 if quick else 5000
    rng = torch.Generator().manual_seed(0)
    images = normalize(torch.randn(size, DIM, generator=rng))
    noise = torch.randn(size * CAPTIONS, DIM, generator=rng) / DIM**0.5
    texts = normalize(SIGNAL * images.repeat_interleave(CAPTIONS, dim=0) + noise)
    positives = torch.stack([torch.arange(size).repeat_interleave(CAPTIONS), torch.arange(size * CAPTIONS)], dim=1)
    forward, backward = ranks(images, texts, positives)
    quality = [float(recall_at(1, result).mean()) for result in (forward, backward)]
    ratio = in_turn(lambda: ranks(images, texts, positives), bare_gemm(images, texts))
    print(
        f"{size} x {size * CAPTIONS}, d={DIM}, both directions (R@1 {100 * quality[0]:.0f} and"
        f" {100 * quality[1]:.0f} %): {ratio} the bare GEMM in tiles of {TILE}"
    )
    return {
        "queries": size,
        "gallery": size * CAPTIONS,
        "dim": DIM,
        "recall_at_1": quality,
        "time_ratio": ratio.value,
        "seconds": {"ranks": ratio.ours, "gemm": ratio.plain},
    }
