"""`ranks` of both directions beside the bare tiled GEMM, on embeddings as good as a published model's; its memory.

`rankings`, which also places every positive and lists the best answers, is measured on the same embeddings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from fusemix.retrieval.comparison import TILE
from fusemix.retrieval.metrics import recall_at
from fusemix.retrieval.rankings import rankings
from fusemix.retrieval.ranks import ranks

from .measure import extra_memory, in_turn, peak_above

DIM, CAPTIONS, TOP = 512, 5, 10
SIGNAL = 0.16
ROWS_AT_ONCE = 4096
COCO, LARGE = 5000, 25_000


def made_up(images: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings of images and of five captions each, and which belong together; made in place."""
    rng = torch.Generator().manual_seed(0)
    queries, gallery = torch.empty(images, DIM), torch.empty(images * CAPTIONS, DIM)
    of_row = torch.arange(len(gallery)) // CAPTIONS
    for part in queries.split(ROWS_AT_ONCE):
        part.normal_(generator=rng)
        part /= part.norm(dim=1, keepdim=True)
    for part, image in zip(gallery.split(ROWS_AT_ONCE), of_row.split(ROWS_AT_ONCE), strict=True):
        part.normal_(generator=rng).div_(DIM**0.5).add_(queries[image], alpha=SIGNAL)
        part /= part.norm(dim=1, keepdim=True)
    return queries, gallery, torch.stack([of_row, torch.arange(len(gallery))], dim=1)


def bare_gemm(queries: Tensor, gallery: Tensor) -> Callable[[], None]:
    """Return a function that computes all scores tile by tile and keeps none."""
    buffer = torch.empty(TILE * TILE)

    def run() -> None:
        columns = [part.t() for part in gallery.split(TILE)]
        for rows in queries.split(TILE):
            for column in columns:
                torch.mm(rows, column, out=buffer[: len(rows) * column.shape[1]].view(len(rows), -1))

    return run


WORK: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {
    "ranks": ranks,
    "rankings": lambda queries, gallery, positives: rankings(queries, gallery, positives, TOP),
}


def memory_of(images: int, work: str) -> dict[str, object]:
    """Measure one way in a process of its own, print what it held beyond the embeddings, and return it."""
    extra = extra_memory("fusemix.benchmarks.speed.ranks", [work, str(images)])
    print(f"{work}, {images} x {images * CAPTIONS}: {extra / 1e6:.0f} MB beyond the embeddings", flush=True)
    return {"work": work, "queries": images, "gallery": images * CAPTIONS, "extra_bytes": extra}


def run(*, quick: bool) -> dict[str, object]:
    """Measure, print the ratios and the memory, and return them."""
    size = 200 if quick else COCO
    images, texts, positives = made_up(size)
    quality = [float(recall_at(1, result).mean()) for result in ranks(images, texts, positives)]
    ratio = in_turn(lambda: ranks(images, texts, positives), bare_gemm(images, texts))
    print(
        f"{size} x {len(texts)}, d={DIM}, both directions (R@1 {100 * quality[0]:.0f} and"
        f" {100 * quality[1]:.0f} %): {ratio} the bare GEMM in tiles of {TILE}"
    )
    full = in_turn(lambda: rankings(images, texts, positives, TOP), bare_gemm(images, texts))
    print(f"with the place of every positive and the {TOP} best answers of each row: {full}", flush=True)
    memory = [memory_of(count, work) for count in (() if quick else (COCO, LARGE)) for work in WORK]
    return {
        "queries": size,
        "gallery": len(texts),
        "dim": DIM,
        "recall_at_1": quality,
        "time_ratio": ratio.value,
        "rankings_time_ratio": full.value,
        "seconds": {"ranks": ratio.ours, "gemm": ratio.plain},
        "rankings_seconds": {"rankings": full.ours, "gemm": full.plain},
        "memory": memory,
    }


def main(work: str, images: str) -> None:
    """Print the extra memory of one way in bytes; for a fresh process."""
    # Few rows first, so that libraries and thread pools do not count.
    WORK[work](*made_up(8))
    arguments = made_up(int(images))
    print(peak_above(lambda: WORK[work](*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
