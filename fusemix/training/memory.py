"""How much memory a step of training takes at its peak, known from shapes alone, before anything is allocated.

The prediction follows a step through its moments (a batch is put together, adapters run forward, the loss runs over
its tiles, adapters run backward) and counts what is held at each, as the code holds it.  It counts tensors, where
every item has every modality; items that lack one take less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from fusemix.edge import Edge
from fusemix.joint_space import ROWS_AT_ONCE
from fusemix.losses.tiles import TILE
from fusemix.training.assembly import BYTES_AT_ONCE
from fusemix.training.settings import FuseSettings
from fusemix.training.tape import FLOAT, Stage, tape

INT = 8
MOMENTS = 2
WORKSPACE = {"cuda": 32 << 20, "cpu": 0}
"""What libraries take from PyTorch's allocator for themselves: cuBLAS 8 to 32 MiB."""
SHARE_FOR_TRAINING = {"cuda": 0.9, "cpu": 0.75}
"""How much of the free memory a prediction may fill; the rest is for its error, and for what allocators keep."""
SMALLEST_MICRO_BATCH = 256
"""Smaller slices leave a GPU idle."""


@dataclass(frozen=True)
class TrainingShape:
    """What the memory of a step follows from.

    Attributes:
        settings: batch size, micro-batches, mixup, adapters, dimension of the joint space.
        dims: modality -> dimension of its latents, in the order of the joint space.
        edges: of the objective.
        device: `cuda` or `cpu`.
        dtype: type in which adapters compute.
        stored: bytes of a number of the stored latents.
        sent_ahead: whether the latents of a step are gathered in the device's memory before it, as they are where
            they wait in a GPU's host or in files.
        latents: bytes of the device's memory that all latents take, if they wait there.
        validation_rows: most rows that a modality has in the validation split.
    """

    settings: FuseSettings
    dims: Mapping[str, int]
    edges: Sequence[Edge]
    device: str
    dtype: torch.dtype
    stored: int = 2
    sent_ahead: bool = True
    latents: int = 0
    validation_rows: int = ROWS_AT_ONCE

    @property
    def at_once(self) -> int:
        """Items that go through an adapter at once."""
        return min(self.settings.micro_batch or self.settings.batch_size, self.settings.batch_size)

    def stages(self, name: str) -> list[Stage]:
        """Return the stages of a modality's adapter."""
        shape = self.settings.adapters.get(name, self.settings.adapter)
        fused = self.device == "cuda"
        return tape(shape, self.dims[name], self.settings.joint_dim, size=self.dtype.itemsize, fused_dropout=fused)


@dataclass(frozen=True)
class MemoryPlan:
    """The peak of a step.

    Attributes:
        moment: when it is reached.
        parts: what is held then -> bytes.
    """

    moment: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        largest = sorted(self.parts.items(), key=lambda part: -part[1])
        told = ", ".join(f"{name} {_in_units(size)}" for name, size in largest if size >= 0.01 * self.total)
        return f"{_in_units(self.total)} at its peak, {self.moment} ({told})"


def predicted_memory(shape: TrainingShape) -> MemoryPlan:
    """Return the peak of a step that is not the first, so that the moments of AdamW are there.

    On a GPU it is what `torch.cuda.max_memory_allocated` will say.  On a CPU it is what tensors take; the process
    grows by up to a quarter more, which glibc keeps of what was freed.
    """
    step = _Step(shape)
    step.assemble()
    step.validate()
    step.held["gradients"] = 0
    trained = [name for name in shape.dims if step.weights[name]]
    if shape.at_once == shape.settings.batch_size:
        for name in shape.dims:
            step.forward(name, shape.at_once)
        step.loss(trained)
        for name in reversed(trained):
            step.backward(name, shape.at_once)
        return step.peak
    # A pass without gradients comes first, which takes less than each slice does now.
    step.held["embeddings"] = FLOAT * shape.settings.joint_dim * shape.settings.batch_size * len(shape.dims)
    step.loss(shape.dims)
    for name in trained:
        # The second slice adds its gradients to those of the first, and so do all others.
        for number in range(2):
            step.forward(name, shape.at_once, again=True)
            step.backward(name, shape.at_once, again=True, adding=number > 0)
    return step.peak


def largest_batch(room: int, shape: TrainingShape) -> int:
    """Return the largest `batch_size` with which a step takes at most `room` bytes, else as `shape` says; 0 if none.

    Micro-batches stay as they are; without them, the whole batch goes through the adapters at once.
    """
    low, high = 0, 1
    while high < 1 << 40 and _fits(room, shape, high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(room, shape, middle) else (low, middle)
    return low


def advice(shape: TrainingShape, free: int, where: str) -> str:
    """Return what to say before training: the predicted peak, and where that may be too much, settings that fit.

    Args:
        shape: of the training.
        free: bytes that are free, when the latents that `shape` counts are in their place already and nothing else.
        where: of what they are free, such as `on cuda` or `in memory`.
    """
    plan, room = predicted_memory(shape), int(SHARE_FOR_TRAINING[shape.device] * free) + shape.latents
    line = f"memory: a step will take {plan}"
    if plan.total <= room:
        return line
    size, ways = shape.settings.batch_size, []
    slices = [1 << bits for bits in range(40) if SMALLEST_MICRO_BATCH <= 1 << bits < shape.at_once]
    sliced = [slice_ for slice_ in slices if _fits(room, _with(shape, micro_batch=slice_), size)]
    if sliced:
        ways.append(f"fuse.micro_batch to {sliced[-1]}")
    if largest := largest_batch(room, shape):
        ways.append(f"fuse.batch_size to at most {largest}")
    remedy = f"set {' or '.join(ways)}" if ways else "make fuse.adapter smaller"
    return f"{line}; that may be more than the {_in_units(free)} that are free {where}: {remedy}"


def _fits(room: int, shape: TrainingShape, batch_size: int) -> bool:
    return predicted_memory(_with(shape, batch_size=batch_size)).total <= room


def _with(shape: TrainingShape, **settings: int) -> TrainingShape:
    return replace(shape, settings=replace(shape.settings, **settings))  # type: ignore[arg-type]


class _Step:
    """What is held in the course of a step, and the most that it was."""

    def __init__(self, shape: TrainingShape) -> None:
        self.shape = shape
        self.stages = {name: shape.stages(name) for name in shape.dims}
        self.weights = {name: sum(stage.weights for stage in self.stages[name]) for name in shape.dims}
        together = FLOAT * sum(self.weights.values())
        statistics = 2 * FLOAT * sum(shape.dims.values())
        self.held = {
            "parameters": together + statistics,
            "moments": MOMENTS * together,
            "gradients": together,
            "latents": shape.latents,
            "batch": self._batch(),
            "activations": 0,
            "embeddings": 0,
            "loss": 0,
            "workspace": WORKSPACE[shape.device],
        }
        self.peak = MemoryPlan("between steps", dict(self.held))

    def assemble(self) -> None:
        """Write the next batch over the last one, some rows at a time."""
        shape, size = self.shape, self.shape.settings.batch_size
        for dim in shape.dims.values():
            rows = min(size, BYTES_AT_ONCE[shape.device] // (FLOAT * dim))
            room = rows * dim * (shape.stored + (2 * FLOAT if self.parents == 2 else 0))
            self._need("batch", self._ingredients() + room, "as a batch is put together")

    def validate(self) -> None:
        """Embed the validation split, as many rows at once as an adapter takes then, and keep the embeddings."""
        rows, done = min(self.shape.validation_rows, ROWS_AT_ONCE), 0
        for name, dim in self.shape.dims.items():
            widest = max(stage.inference for stage in self.stages[name])
            self._need("activations", done + rows * ((FLOAT + self.shape.stored) * dim + widest), "in a validation")
            done += self.shape.validation_rows * self.width

    def forward(self, name: str, items: int, *, again: bool = False) -> None:
        """Run an adapter; where it runs `again`, for a slice, the embeddings of the whole batch are there already."""
        moment = f"in the forward pass of {name}"
        self.held["activations" if again else "embeddings"] += self.width * items
        noise = self.shape.settings.adapters.get(name, self.shape.settings.adapter).noise
        self._need("activations", FLOAT * self.shape.dims[name] * items * (3 if noise else 2), moment)
        for stage in self.stages[name]:
            self.held["activations"] += stage.kept * items + self._copies(stage)
            self._need("activations", stage.forward * items, moment)

    def loss(self, names: Iterable[str]) -> None:
        """Run the loss of each edge back, the last one first, whose embeddings' gradients add up.

        Args:
            names: modalities whose embeddings want a gradient.
        """
        size, before, wanted = self.shape.settings.batch_size, self.held["embeddings"], set(names)
        side = min(TILE[self.shape.device], size)
        ready: set[str] = set()
        # The order of rows and of columns, and the ids of contents that others have too; then their log-sum-exp.
        contents = 2 * self.parents if self.shape.settings.mask_equal_content else 0
        layouts = 2 * INT * (1 + contents) * size * len(self.shape.edges)
        self.held["loss"] = layouts + 2 * FLOAT * size * len(self.shape.edges)
        for edge in reversed(self.shape.edges):
            beside = max(2 * side, size) * self.width
            tiles = 2 * FLOAT * side**2
            self._need("loss", tiles + 2 * size * self.width + beside, "in the backward pass of the loss")
            ready |= {edge.a, edge.b} & wanted
            self.held["embeddings"] = before + len(ready) * size * self.width
        self.held["loss"] = layouts

    def backward(self, name: str, items: int, *, again: bool = False, adding: bool = False) -> None:
        """Run an adapter back.

        Args:
            name: modality.
            items: that went forward.
            again: whether a slice went, whose embeddings' gradients are held until all have gone.
            adding: whether the weights have gradients already.
        """
        moment = f"in the backward pass of {name}"
        for stage in reversed(self.stages[name]):
            found = self.shape.dtype.itemsize * stage.last_weights
            self._need("activations", stage.backward * items + found, moment)
            if not adding:
                self.held["gradients"] += FLOAT * stage.last_weights
            self._need("activations", stage.later * items, moment)
            if not adding:
                self.held["gradients"] += FLOAT * (stage.weights - stage.last_weights)
            self.held["activations"] -= stage.kept * items + self._copies(stage)
            if not again and stage is self.stages[name][-1]:
                self.held["embeddings"] -= self.width * items
        if again:
            self.held["activations"] -= self.width * items

    @property
    def width(self) -> int:
        """Bytes of an embedding."""
        return FLOAT * self.shape.settings.joint_dim

    def _copies(self, stage: Stage) -> int:
        """Return the bytes of the weights that autocast converts."""
        return self.shape.dtype.itemsize * stage.weights if self.shape.dtype.itemsize < FLOAT else 0

    @property
    def parents(self) -> int:
        """Items that make up a pair."""
        return 1 if self.shape.settings.mixup == "none" else 2

    def _marks(self) -> int:
        """Return the bytes of a batch's parents, their contents, and who is present."""
        modalities = len(self.shape.dims)
        return self.shape.settings.batch_size * (INT * self.parents * (1 + modalities) + modalities)

    def _ingredients(self) -> int:
        """Return the bytes of what a batch is made from: marks, rows of latents and, where they are sent, latents."""
        settings, dims = self.shape.settings, self.shape.dims.values()
        size = self._marks() + INT * self.parents * settings.batch_size * len(dims)
        if self.shape.sent_ahead:
            items = settings.batch_size * (2 if settings.mixup == "halves" else 1)
            size += items * self.shape.stored * sum(dims)
        return size

    def _batch(self) -> int:
        """Return the bytes of a batch and, where it is prepared ahead, of what the next one will be made from."""
        ahead = self.shape.sent_ahead or self.shape.device == "cuda"
        values = FLOAT * self.shape.settings.batch_size * sum(self.shape.dims.values())
        return values + self._marks() + (self._ingredients() if ahead else 0)

    def _need(self, part: str, size: int, moment: str) -> None:
        """Take note of what is held while a part takes some more."""
        if sum(self.held.values()) + size > self.peak.total:
            self.peak = MemoryPlan(moment, {**self.held, part: self.held[part] + size})


def _in_units(size: int) -> str:
    for unit, bytes_of_it, digits in (("GB", 1e9, 1), ("MB", 1e6, 0)):
        if size >= bytes_of_it:
            return f"{size / bytes_of_it:.{digits}f} {unit}"
    return f"{size / 1e3:.0f} KB"
