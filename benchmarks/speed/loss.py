"""Tiled `info_nce` beside the materialised loss with two GEMMs, forward and backward.

The materialised loss is what the FuseMix release and CLIP write: both score matrices, two cross-entropies.
`python -m fusemix.benchmarks.speed.loss tiled|materialised B D` prints the extra memory of one in bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from fusemix.losses import info_nce

from .measure import extra_memory, in_turn, peak_above

DIM, TEMPERATURE = 512, 0.07
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def materialised(u: Tensor, v: Tensor, log_scale: Tensor) -> Tensor:
    """Return the symmetric InfoNCE of (B, d) embeddings from two stored B x B matrices."""
    targets = torch.arange(len(u))
    by_row, by_column = log_scale.exp() * u @ v.T, log_scale.exp() * v @ u.T
    return (cross_entropy(by_row, targets) + cross_entropy(by_column, targets)) / 2


LOSSES: dict[str, Loss] = {"tiled": info_nce, "materialised": materialised}


def one_step(loss: Loss, size: int, dim: int) -> Callable[[], None]:
    """Return a function that runs a loss forward and backward on random embeddings."""
    rng = torch.Generator().manual_seed(0)
    u, v = (normalize(torch.randn(size, dim, generator=rng)).requires_grad_() for _ in range(2))
    log_scale = torch.tensor(1 / TEMPERATURE).log().requires_grad_()

    def run() -> None:
        u.grad = v.grad = log_scale.grad = None
        loss(u, v, log_scale).backward()

    return run


def run(*, quick: bool) -> dict[str, object]:
    """Measure time and memory, print the ratios, and return them."""
    rows: list[dict[str, object]] = []
    for size in (256,) if quick else (2048, 8192, 16384):
        ratio = in_turn(one_step(info_nce, size, DIM), one_step(materialised, size, DIM))
        memory = {name: extra_memory("fusemix.benchmarks.speed.loss", [name, str(size), str(DIM)]) for name in LOSSES}
        share = memory["tiled"] / max(memory["materialised"], 1)
        print(
            f"B={size}, d={DIM}, float32: time {ratio}; extra memory {share:.3f}x"
            f" ({memory['tiled'] / 1e6:.0f} MB against {memory['materialised'] / 1e6:.0f} MB)",
            flush=True,
        )
        rows.append(
            {
                "batch_size": size,
                "dim": DIM,
                "time_ratio": ratio.value,
                "seconds": {"tiled": ratio.ours, "materialised": ratio.plain},
                "memory_ratio": share,
                "extra_bytes": memory,
            }
        )
    return {"rows": rows}


def main(name: str, size: str, dim: str) -> None:
    """Print the extra memory of one loss in bytes; for a fresh process."""
    # A small step first, so that libraries and thread pools do not count.
    one_step(LOSSES[name], 64, 64)()
    print(peak_above(one_step(LOSSES[name], int(size), int(dim))))


if __name__ == "__main__":
    main(*sys.argv[1:])
