"""Predicted against measured peak memory of a training step, and the batches that cards have room for.

Each case trains two steps in a process of its own, with the feeder and the optimiser that `fuse` uses; what counts is
the most that the second takes, latents apart.  On a GPU PyTorch counts it.  On a CPU it is the peak of the process
above what it held before; glibc, which else keeps some of what is freed, is told to return all that is large.

`python -m fusemix.benchmarks.speed.memory CASE` prints the peak of one case, given as JSON, in bytes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch

from fusemix.adapters.settings import AdapterSettings
from fusemix.device import adapter_dtype
from fusemix.latents.paired import ModalityLatents, PairedLatents
from fusemix.latents.provenance import DatasetStamp
from fusemix.objective import Objective
from fusemix.training.feeding import Feeder
from fusemix.training.learner import Learner
from fusemix.training.memory import SHARE_FOR_TRAINING, TrainingShape, largest_batch, predicted_memory
from fusemix.training.settings import FuseSettings
from fusemix.training.space import fresh_space

from .measure import extra_memory, peak_above

NAMES = ("image", "text", "audio")
OFFICIAL = (1536, 1024)
CARDS = (16, 32)
MICRO_BATCH = 2048
RETURNED_FROM = 1 << 16


@dataclass(frozen=True)
class Case:
    """A training: `dims` of its modalities, all of which are aligned with each other."""

    dims: tuple[int, ...]
    batch_size: int
    micro_batch: int | None = None
    kind: Literal["mlp", "gated", "linear"] = "mlp"
    depth: int = 4
    joint_dim: int = 512
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "cpu"

    @property
    def settings(self) -> FuseSettings:
        """The settings of the training."""
        adapter = AdapterSettings("linear") if self.kind == "linear" else AdapterSettings(self.kind, self.depth)
        return FuseSettings(
            batch_size=self.batch_size,
            micro_batch=self.micro_batch,
            joint_dim=self.joint_dim,
            adapter=adapter,
            precision=self.precision,
            residency="host",
        )

    @property
    def shape(self) -> TrainingShape:
        """What the prediction rests on; the latents wait in the host's memory."""
        dims = dict(sorted(zip(NAMES, self.dims, strict=False)))
        dtype = getattr(torch, self.precision)
        edges = self.settings.edges_between(dims)
        gathered = self.device == "cuda"
        return TrainingShape(self.settings, dims, edges, self.device, dtype, sent_ahead=gathered, validation_rows=0)

    def __str__(self) -> str:
        adapters = self.kind if self.kind == "linear" else f"{self.kind} of depth {self.depth}"
        slices = f" in slices of {self.micro_batch}" if self.micro_batch else ""
        dims = " + ".join(map(str, self.dims))
        return f"{dims} dims, {adapters}, joint {self.joint_dim}, {self.precision}, B={self.batch_size}{slices}"


ON_CPU = (
    Case(OFFICIAL, 1024),
    Case(OFFICIAL, 3072),
    Case(OFFICIAL, 4096, micro_batch=512),
    Case((384, 256), 8192, depth=1, joint_dim=256),
    Case((384, 256), 8192, depth=1, joint_dim=256, micro_batch=1024),
    Case((384, 256), 8192, kind="gated", depth=1, joint_dim=256),
    Case((384, 256, 128), 8192, depth=2, joint_dim=128),
    Case((384, 256, 128), 8192, kind="linear", joint_dim=128),
)
ON_GPU = (
    Case(OFFICIAL, 20480, device="cuda"),
    Case(OFFICIAL, 20480, precision="float16", device="cuda"),
    Case(OFFICIAL, 20480, micro_batch=MICRO_BATCH, precision="float16", device="cuda"),
    Case(OFFICIAL, 65536, micro_batch=MICRO_BATCH, precision="float16", device="cuda"),
    Case((1536, 1024, 768), 16384, precision="float16", device="cuda"),
    Case((384, 256), 65536, kind="gated", depth=1, joint_dim=256, device="cuda"),
)
QUICK = Case((64, 48), 2048, depth=1, joint_dim=32)


def random_latents(case: Case) -> PairedLatents:
    """Return as many random items as a step takes, float16, one row of each in every modality."""
    count, generator = 2 * case.batch_size, torch.Generator().manual_seed(0)
    rows, modalities = torch.arange(count), {}
    for number, (name, dim) in enumerate(zip(NAMES, case.dims, strict=False)):
        values = torch.empty(count, dim, dtype=torch.float16)
        for part in values.split(4096):
            part.copy_(torch.randn(part.shape, generator=generator))
        content = rows + number * count
        modalities[name] = ModalityLatents(values, content, [""] * count, rows, torch.arange(count + 1))
    items = rows.numpy().astype(object)
    return PairedLatents(items, items, modalities, DatasetStamp("random"))


def training(case: Case) -> Callable[[], None]:
    """Return a function that makes a joint space and trains it for two steps."""
    latents, settings, device = random_latents(case), case.settings, torch.device(case.device)

    def run() -> None:
        objective = Objective(settings.edges_between(latents.modalities))
        feeder = Feeder([latents], settings, device)
        space = fresh_space([latents], settings, objective)
        dtype = adapter_dtype(device, settings.precision)
        learner = Learner(space.to(device), objective, settings, dtype, feeder.item_ids)
        for step, feed in enumerate(feeder.steps(0, 2)):
            learner.step(step, feed)

    return run


def run(*, quick: bool) -> dict[str, object]:
    """Measure, print predictions beside it and the batches for cards, and return all."""
    # In the environment of the processes that measure; a threshold that glibc moves by itself is no threshold.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(RETURNED_FROM)
    cases: tuple[Case, ...] = (QUICK,) if quick else ON_CPU
    if not torch.cuda.is_available():
        print("no GPU here: its cases are left out")
    elif not quick:
        cases += ON_GPU
    rows: list[dict[str, object]] = []
    for case in cases:
        plan = predicted_memory(case.shape)
        measured = extra_memory("fusemix.benchmarks.speed.memory", [json.dumps(asdict(case))])
        ratio = plan.total / measured
        print(
            f"{case}, {case.device}: predicted {ratio:.2f}x of what was measured"
            f" ({plan.total / 1e9:.2f} GB against {measured / 1e9:.2f} GB; {plan.moment})",
            flush=True,
        )
        rows.append(
            {**asdict(case), "predicted_bytes": plan.total, "measured_bytes": measured, "ratio": ratio}
            | {"moment": plan.moment, "parts": dict(plan.parts)}
        )
    return {"rows": rows, "cards": for_cards()}


def for_cards() -> list[dict[str, object]]:
    """Print and return the largest batches of the official adapters that cards are predicted to have room for."""
    print(
        f"predicted, not measured: the largest B for {OFFICIAL[0]} + {OFFICIAL[1]} dims, adapters of depth 4, joint"
        f" 512, one edge, latents in the host's memory, {100 * SHARE_FOR_TRAINING['cuda']:.0f} % of the card to use"
    )
    rows: list[dict[str, object]] = []
    for gigabytes in CARDS:
        for precision in ("float16", "float32"):
            for micro_batch in (None, MICRO_BATCH):
                case = Case(OFFICIAL, 1, micro_batch, precision=precision, device="cuda")
                largest = largest_batch(int(SHARE_FOR_TRAINING["cuda"] * gigabytes * 2**30), case.shape)
                slices = f"in slices of {micro_batch}" if micro_batch else "in one pass"
                print(f"{gigabytes} GB, {precision}, {slices}: B={largest:,}")
                rows.append(
                    {"card_gb": gigabytes, "precision": precision, "micro_batch": micro_batch, "batch_size": largest}
                )
    return rows


def main(given: str) -> None:
    """Print the peak of a case in bytes; for a fresh process."""
    fields = json.loads(given)
    case = Case(**{**fields, "dims": tuple(fields["dims"])})
    # A small training first, so that libraries and thread pools do not count.
    training(replace(case, dims=(8,) * len(case.dims), batch_size=8, micro_batch=None, joint_dim=8))()
    work = training(case)
    if case.device == "cpu":
        print(peak_above(work))
        return
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    print(torch.cuda.max_memory_allocated() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
