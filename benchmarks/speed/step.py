"""A whole training step beside a step of the same adapters and the same loss on tensors that lie ready.

What training adds is all that a bare loop leaves out: items drawn and gathered, mixup, presence and equal content,
dropout that can be replayed, the norm of the gradients, figures.  Both ways train one joint space with one optimiser,
the official adapters of FuseMix (depth 4, expansion 4) on latents of DINOv2-giant and BGE-large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fusemix.adapters.settings import AdapterSettings
from fusemix.device import adapter_dtype
from fusemix.latents.paired import ModalityLatents, PairedLatents
from fusemix.latents.provenance import DatasetStamp
from fusemix.losses import info_nce
from fusemix.objective import Objective
from fusemix.training.feeding import Feeder
from fusemix.training.learner import Learner
from fusemix.training.settings import FuseSettings
from fusemix.training.space import fresh_space

from .measure import in_turn

DIMS = {"image": 1536, "text": 1024}
SETTINGS = FuseSettings(adapter=AdapterSettings(depth=4, expansion=4), warmup_steps=0)
STEPS_OF_ITEMS = 3


def random_latents(items: int, dims: Mapping[str, int]) -> PairedLatents:
    """Return items with one random float16 latent of each modality."""
    generator, rows = torch.Generator().manual_seed(0), torch.arange(items)
    modalities = {
        name: ModalityLatents(
            torch.randn(items, dim, generator=generator).half(),
            rows + number * items,
            [""] * items,
            rows,
            torch.arange(items + 1),
        )
        for number, (name, dim) in enumerate(dims.items())
    }
    ids = rows.numpy().astype(object)
    return PairedLatents(ids, ids, modalities, DatasetStamp("random"))


def both_ways(
    settings: FuseSettings, dims: Mapping[str, int], device: torch.device
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return functions that take a step as training does, and on ready tensors."""
    latents = random_latents(STEPS_OF_ITEMS * 2 * settings.batch_size, dims)
    objective = Objective.all_pairs(dims)
    feeder = Feeder([latents], settings, device)
    space, dtype = fresh_space([latents], settings, objective).to(device), adapter_dtype(device, settings.precision)
    learner = Learner(space, objective, settings, dtype, feeder.item_ids)
    # Where the next step is prepared meanwhile, it is so during a step of training.
    feeds = enumerate(feeder.steps(0, settings.steps))
    _, ready = next(feeds)

    def whole() -> None:
        learner.step(*next(feeds))
        _wait_for(device)

    def plain() -> None:
        plain_step(learner, ready.batch.values)
        _wait_for(device)

    return whole, plain


def plain_step(learner: Learner, values: Mapping[str, Tensor]) -> None:
    """Take a step as a loop for one pair of modalities is commonly written."""
    learner.optimizer.zero_grad()
    learner.space.train()
    device = learner.device.type
    with torch.autocast(device, learner.dtype, enabled=learner.dtype != torch.float32):
        u, v = (learner.space(name, latents) for name, latents in values.items())
    loss = info_nce(u, v, learner.space.log_scales["shared"])
    learner.scaler.scale(loss).backward()
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    float(loss.detach())


def run(*, quick: bool) -> dict[str, object]:
    """Measure, print the ratios, and return them."""
    cases = [("cpu", size) for size in ((64,) if quick else (512, 2048))]
    if torch.cuda.is_available():
        cases += [("cuda", 64 if quick else 20480)]
    else:
        print("no GPU here: its case is left out")
    dims = {name: dim // 32 for name, dim in DIMS.items()} if quick else DIMS
    rows: list[dict[str, object]] = []
    for name, size in cases:
        device = torch.device(name)
        ratio = in_turn(*both_ways(replace(SETTINGS, batch_size=size), dims, device))
        dtype = str(adapter_dtype(device)).removeprefix("torch.")
        print(
            f"training step, B={size}, {'+'.join(map(str, dims.values()))} dims, {name}, {dtype}: {ratio}", flush=True
        )
        rows.append(
            {
                "batch_size": size,
                "dims": dims,
                "device": name,
                "dtype": dtype,
                "time_ratio": ratio.value,
                "seconds": {"training": ratio.ours, "ready tensors": ratio.plain},
            }
        )
    return {"rows": rows}


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
