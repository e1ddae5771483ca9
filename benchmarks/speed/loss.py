"""Tiled `info_nce` beside the materialised loss with two GEMMs, forward and backward.

The materialised loss is what the FuseMix release and CLIP write: both score matrices, two cross-entropies.  On a GPU
the tiled loss also stands beside its floor: its four GEMMs, 8 B^2 d FLOPs, at the rate that one GEMM reaches there.

`python -m fusemix.benchmarks.speed.loss tiled|materialised B D` prints the extra memory of one in bytes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from fusemix.losses import info_nce
from fusemix.losses.tiles import TILE

from .measure import REPEATS, extra_memory, in_turn, peak_above

DIM, TEMPERATURE = 512, 0.07
ON_CPU, ON_GPU = (2048, 8192, 16384), (20480, 65536, 262144)
LARGEST_MATERIALISED = 65536
GEMMS = 20
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def materialised(u: Tensor, v: Tensor, log_scale: Tensor) -> Tensor:
    """Return the symmetric InfoNCE of (B, d) embeddings from two stored B x B matrices."""
    targets = torch.arange(len(u), device=u.device)
    by_row, by_column = log_scale.exp() * u @ v.T, log_scale.exp() * v @ u.T
    return (cross_entropy(by_row, targets) + cross_entropy(by_column, targets)) / 2


LOSSES: dict[str, Loss] = {"tiled": info_nce, "materialised": materialised}


def one_step(loss: Loss, size: int, dim: int, device: str = "cpu") -> Callable[[], None]:
    """Return a function that runs a loss forward and backward on random embeddings, and waits for it."""
    rng = torch.Generator().manual_seed(0)
    u, v = (normalize(torch.randn(size, dim, generator=rng)).to(device).requires_grad_() for _ in range(2))
    log_scale = torch.tensor(1 / TEMPERATURE, device=device).log().requires_grad_()

    def run() -> None:
        loss(u, v, log_scale).backward()
        _wait_for(device)
        u.grad = v.grad = log_scale.grad = None

    return run


def run(*, quick: bool) -> dict[str, object]:
    """Measure time and memory, print the ratios, and return them."""
    rows: list[dict[str, object]] = []
    for size in (256,) if quick else ON_CPU:
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
    return {"rows": rows, "gpu_rows": on_gpu(quick=quick)}


def on_gpu(*, quick: bool) -> list[dict[str, object]]:
    """Measure on a GPU, print, and return the figures; say so where there is none."""
    if not torch.cuda.is_available():
        print("no GPU here: its rows are left out")
        return []
    rate = gemm_rate("cuda")
    rows: list[dict[str, object]] = []
    for size in (256,) if quick else ON_GPU:
        tiled, floor = one_step(info_nce, size, DIM, "cuda"), 8 * size**2 * DIM / rate
        memory, beside = {"tiled": _peak_on_gpu(tiled)}, ""
        if size <= LARGEST_MATERIALISED and (plain := _that_fits(one_step(materialised, size, DIM, "cuda"))):
            memory["materialised"] = _peak_on_gpu(plain)
            ratio = in_turn(tiled, plain)
            seconds = {"tiled": ratio.ours, "materialised": ratio.plain}
            beside = f"time {ratio}; extra memory {memory['tiled'] / memory['materialised']:.3f}x; "
        else:
            seconds = {"tiled": in_turn(tiled, lambda: None, 1 if size > LARGEST_MATERIALISED else REPEATS).ours}
            beside = "alone, the materialised one does not fit; " if size <= LARGEST_MATERIALISED else "alone; "
        multiple = median(seconds["tiled"]) / floor
        print(
            f"B={size}, d={DIM}, float32, GPU: {beside}{median(seconds['tiled']):.3f} s, {multiple:.2f}x of the"
            f" 8 B^2 d FLOPs at {rate / 1e12:.1f} TFLOP/s; {memory['tiled'] / 1e6:.0f} MB",
            flush=True,
        )
        rows.append(
            {"batch_size": size, "dim": DIM, "seconds": seconds, "extra_bytes": memory}
            | {"floor_seconds": floor, "floor_ratio": multiple, "gemm_flops_a_second": rate}
        )
    return rows


def gemm_rate(device: str) -> float:
    """Return the FLOPs a second that the product of a tile reaches, float32 as in the loss."""
    tile = TILE[device]
    rows, columns = (torch.randn(tile, DIM, device=device) for _ in range(2))
    out, seconds = torch.empty(tile, tile, device=device), []
    for _ in range(REPEATS + 1):
        _wait_for(device)
        began = time.perf_counter()
        for _ in range(GEMMS):
            torch.mm(rows, columns.t(), out=out)
        _wait_for(device)
        seconds.append(time.perf_counter() - began)
    return GEMMS * 2 * tile**2 * DIM / median(seconds[1:])


def _that_fits(step: Callable[[], None]) -> Callable[[], None] | None:
    """Return the step, or None where the GPU has not enough memory for it."""
    try:
        step()
    except torch.OutOfMemoryError:
        return None
    return step


def _peak_on_gpu(step: Callable[[], None]) -> int:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated() - before


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main(name: str, size: str, dim: str) -> None:
    """Print the extra memory of one loss in bytes; for a fresh process."""
    # A small step first, so that libraries and thread pools do not count.
    one_step(LOSSES[name], 64, 64)()
    print(peak_above(one_step(LOSSES[name], int(size), int(dim))))


if __name__ == "__main__":
    main(*sys.argv[1:])
