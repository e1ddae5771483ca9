"""Batches by `Feeder` beside per-sample dictionaries, and the memory of training on a million items.

The plain way is the FuseMix release's: a dataset that gives a dictionary of float32 tensors for each sample, torch's
`DataLoader` with `default_collate`, then the first half mixed with the second.  It gets its samples in memory, and is
spared the noise that the release draws for each.  `Feeder` gets the same latents as float16 matrices; drawing items,
partners and lambda is timed with the rest.

`python -m fusemix.benchmarks.speed.batches FOLDER BATCH STEPS` trains in a process of its own on the latents files of
a folder, and prints its peak memory in bytes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from fusemix.adapters.settings import AdapterSettings
from fusemix.benchmarks.synthetic import SyntheticSettings, synthetic_latents
from fusemix.latents.file import LatentsFile
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import DatasetStamp, EncoderSpec
from fusemix.training.feeding import Feeder
from fusemix.training.fuse import fuse
from fusemix.training.settings import FuseSettings

from .measure import extra_memory, in_turn, peak_memory

DIMS = {"image": 1536, "text": 1024}
POOL, PAIRS = 100_000, 20_480
ITEMS, SMALL_DIM, BATCH, STEPS = 1_000_000, 256, 16_384, 20
BLOCK = 8192


def matrices(items: int) -> dict[str, Tensor]:
    """Return (N, D) float16 latents of each modality."""
    rng = torch.Generator().manual_seed(0)
    latents = {name: torch.empty(items, dim, dtype=torch.float16) for name, dim in DIMS.items()}
    for values in latents.values():
        for block in values.split(BLOCK):
            block.copy_(torch.randn(block.shape, generator=rng))
    return latents


def fed(latents: dict[str, Tensor], pairs: int) -> Callable[[], Mapping[str, Tensor]]:
    """Return a function that makes the next step's batch by a `Feeder`."""
    ids = [f"{item:06}" for item in range(len(latents["image"]))]
    arrays = {name: values.numpy() for name, values in latents.items()}
    paired = PairedLatents.from_arrays(arrays, dict.fromkeys(arrays, ids), dict.fromkeys(ids, "train"))
    feeds = Feeder([paired], FuseSettings(batch_size=pairs), torch.device("cpu")).steps(0, sys.maxsize)
    return lambda: next(feeds).batch.values


class Samples(Dataset[dict[str, Tensor]]):
    """A dictionary for each sample, of tensors that are there one by one, as the release stores them."""

    def __init__(self, latents: dict[str, Tensor]) -> None:
        self._latents = {name: list(values.float().unbind()) for name, values in latents.items()}

    def __len__(self) -> int:
        return len(self._latents["image"])

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        return {name: latents[item] for name, latents in self._latents.items()}


def collated(latents: dict[str, Tensor], pairs: int) -> Callable[[], Mapping[str, Tensor]]:
    """Return a function that makes the next step's batch from a dictionary for each sample."""
    rng = np.random.default_rng(0)
    samples = Samples(latents)
    order = BatchSampler(
        RandomSampler(samples, generator=torch.Generator().manual_seed(0)), 2 * pairs, drop_last=True
    )
    loader = DataLoader(samples, batch_sampler=order)
    batches = chain.from_iterable(repeat(loader))

    def run() -> Mapping[str, Tensor]:
        lam = float(rng.beta(1.0, 1.0))
        return {name: lam * values[:pairs] + (1 - lam) * values[pairs:] for name, values in next(batches).items()}

    return run


def store(folder: Path, items: int) -> int:
    """Write latents files of a synthetic world into a folder and return the bytes of their latents."""
    world = synthetic_latents(SyntheticSettings(items, items // 500, 1, (SMALL_DIM, SMALL_DIM)))
    size = 0
    for name, modality in world.modalities.items():
        spec = EncoderSpec(name="random", modality=name, dim=SMALL_DIM, weights="none")
        values, splits = modality.values.numpy(), world.splits.tolist()
        stamp = DatasetStamp("synthetic")
        LatentsFile.from_arrays(
            folder / f"{name}.h5", world.items.tolist(), values, spec, splits=splits, dataset=stamp
        )
        size += values.nbytes
    return size


def train(folder: Path, batch_size: int, steps: int) -> None:
    """Load the latents files of a folder and train small adapters on them."""
    settings = FuseSettings(
        steps=steps,
        batch_size=batch_size,
        warmup_steps=1,
        validate_every=steps,
        joint_dim=128,
        adapter=AdapterSettings(depth=1, expansion=2),
    )
    fuse(PairedLatents.load({path.stem: path for path in sorted(folder.glob("*.h5"))}), settings, device="cpu")


def run(*, quick: bool) -> dict[str, object]:
    """Measure, print, and return the figures."""
    pool, pairs = (2000, 500) if quick else (POOL, PAIRS)
    latents = matrices(pool)
    ratio = in_turn(fed(latents, pairs), collated(latents, pairs))
    print(
        f"batch of {2 * pairs} items ({' + '.join(map(str, DIMS.values()))} dims) with mixup of halves: time {ratio};"
        f" {1 / ratio.value:.1f}x faster than dictionaries with default_collate",
        flush=True,
    )
    del latents
    items, batch_size, steps = (5000, 512, 2) if quick else (ITEMS, BATCH, STEPS)
    with tempfile.TemporaryDirectory(dir=".") as name:
        size = store(Path(name), items)
        peak = extra_memory("fusemix.benchmarks.speed.batches", [name, str(batch_size), str(steps)])
    print(
        f"training on {items} items (2 x {SMALL_DIM} dims, float16), {steps} steps of {batch_size} pairs: peak"
        f" {peak / 1e9:.2f} GB, latents {size / 1e9:.2f} GB, difference {(peak - size) / 1e9:.2f} GB"
    )
    return {
        "items_a_batch": 2 * pairs,
        "pool": pool,
        "dims": list(DIMS.values()),
        "time_ratio": ratio.value,
        "seconds": {"fusemix": ratio.ours, "default_collate": ratio.plain},
        "training": {
            "items": items,
            "dims": [SMALL_DIM, SMALL_DIM],
            "batch_size": batch_size,
            "steps": steps,
            "peak_bytes": peak,
            "latents_bytes": size,
        },
    }


def main(folder: str, batch_size: str, steps: str) -> None:
    """Train and print the peak memory in bytes; for a fresh process."""
    train(Path(folder), int(batch_size), int(steps))
    print(peak_memory())


if __name__ == "__main__":
    main(*sys.argv[1:])
