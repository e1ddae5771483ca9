"""Where latents wait for their step: on the device, in host memory, or in their files.

A step's latents are the same bits wherever they come from: host memory and files give them as they are stored, and
all that is computed is computed on the device.  For a GPU, what comes from host memory or files is gathered into
pinned memory a step ahead.  Where training runs on a CPU, the device's memory is the host's.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fusemix.batch import ABSENT
from fusemix.errors import FusemixError
from fusemix.free_memory import free_memory
from fusemix.latents.mapped import MappedLatents
from fusemix.latents.paired import ELEMENTS_AT_ONCE, ModalityLatents, PairedLatents

Place = Literal["device", "host", "disk"]

SHARE_BESIDE_TRAINING, SHARE_OF_HOST = 0.5, 0.75
"""How much of the free memory latents may take: where training runs too, and of a host that a GPU trains beside."""
READERS = 16
"""Threads that read a mapped file: a disk is fast only where it has many requests at a time."""


@dataclass(frozen=True)
class Residency:
    """Where latents wait, and in one line where and why."""

    place: Place
    line: str

    def __str__(self) -> str:
        return self.line


@dataclass(frozen=True)
class Table:
    """Latents of one modality of one dataset, where they wait.

    Attributes:
        values: (R, D) latents as they are stored.
        places: of each row of the latents file, its place in `values`; the same place if None.
        at_hand: whether `values` are on the device, so that nothing has to be gathered ahead.
        mapped: the file, where `values` are in it.
    """

    values: Tensor
    places: Tensor | None
    at_hand: bool
    mapped: MappedLatents | None

    def find(self, rows: Tensor) -> Tensor:
        """Return the places of rows of the latents file in `values`."""
        return rows if self.places is None else self.places[rows]

    def gather(self, places: Tensor, readers: Executor, *, pinned: bool) -> tuple[Tensor, Tensor]:
        """Read latents into host memory; those of a file in the order of the file.

        Args:
            places: (N,) places in `values`.
            readers: threads that read the file.
            pinned: whether a GPU will copy them.

        Returns:
            (N, D) latents and, for each of the places, where among them its latent is.

        Raises:
            FusemixError: where the file has been cut short.
        """
        gathered = torch.empty(len(places), self.values.shape[1], dtype=self.values.dtype, pin_memory=pinned)
        if self.mapped is None:
            return torch.index_select(self.values, 0, places, out=gathered), torch.arange(len(places))
        self.mapped.check()
        ordered, order = places.sort()
        values = self.values.numpy()

        def read(some: Tensor, out: Tensor) -> None:
            # numpy, because each of torch's operators would start threads of its own; and "clip" fills `out` itself.
            np.take(values, some.numpy(), axis=0, out=out.numpy(), mode="clip")

        for _ in readers.map(read, ordered.tensor_split(READERS), gathered.tensor_split(READERS)):
            pass
        index = torch.empty_like(order)
        index[order] = torch.arange(len(order))
        return gathered, index


def wants_mapping(size: int, residency: str, device: torch.device) -> bool:
    """Return whether latents are better mapped (`PairedLatents.load(..., mapped=True)`) than read.

    They are where a `Feeder` will leave them in their files, and where it will copy them to a GPU: the host then
    needs no copy of its own.

    Args:
        size: bytes of all latents, also of those that are not trained on.
        residency: the setting `fuse.residency`.
        device: where training will run.
    """
    place = _first_with_room(size, size, device) if residency == "auto" else residency
    return place == "disk" or (place == "device" and device.type == "cuda")


def choose_residency(
    train: Sequence[PairedLatents], residency: Literal["auto", "device", "host", "disk"], device: torch.device
) -> Residency:
    """Return where the latents of the items to train on shall wait.

    `auto` takes the device if they fill at most half of its free memory; else the host of a GPU if those that are
    still in files fill at most three quarters of its available memory; else their files.  Latents that have been read
    already stay in memory.

    Args:
        train: the items to train on, of each dataset.
        residency: the setting `fuse.residency`.
        device: where training runs.

    Raises:
        FusemixError: where the setting names a place that has not room for them.
    """
    parts = [modality for latents in train for modality in latents.modalities.values()]
    size = sum(_size(part) for part in parts)
    in_files = sum(_size(part) for part in parts if part.mapped is not None)
    for_device = size if device.type == "cuda" else in_files
    place = _first_with_room(for_device, in_files, device) if residency == "auto" else residency
    needs = {"device": (for_device, device), "host": (in_files, torch.device("cpu"))}
    if place in needs and needs[place][0] > (free := free_memory(needs[place][1])):
        raise FusemixError(
            f"fuse.residency is {residency}, but the latents take {_in_units(size)} and {_in_units(free)} are free"
            f" {_on(needs[place][1])}: set it to auto or disk"
        )
    homes = [device, torch.device("cpu")] if device.type == "cuda" else [device]
    room = ", ".join(f"{_in_units(free_memory(home))} {_on(home)}" for home in homes)
    where = _described(place, in_files, size - in_files, device)
    return Residency(place, f"latents: {_in_units(size)} {where}, by fuse.residency {residency} (free: {room})")


def make_table(modality: ModalityLatents, place: Place, device: torch.device) -> Table:
    """Bring latents to where they shall wait; those that are there already are not copied.

    Args:
        modality: latents of the items to train on.
        place: where they shall wait.
        device: where training runs.
    """
    if place == "disk" and modality.mapped is not None:
        modality.mapped.expect_scattered_rows()
        return Table(modality.values, None, at_hand=False, mapped=modality.mapped)
    home = device if place == "device" else torch.device("cpu")
    at_hand = home.type == device.type
    if modality.mapped is None and home.type == "cpu":
        return Table(modality.values, None, at_hand, mapped=None)
    values = torch.empty(len(modality.rows), modality.values.shape[1], dtype=modality.values.dtype, device=home)
    places = torch.full((len(modality.values),), ABSENT)
    start = 0
    for rows, chunk in modality.in_chunks(ELEMENTS_AT_ONCE):
        values[start : start + len(rows)] = chunk
        places[rows] = torch.arange(start, start + len(rows))
        start += len(rows)
    return Table(values, places, at_hand, mapped=None)


def _first_with_room(for_device: int, for_host: int, device: torch.device) -> Place:
    if for_device <= SHARE_BESIDE_TRAINING * free_memory(device):
        return "device"
    if device.type == "cuda" and for_host <= SHARE_OF_HOST * free_memory(torch.device("cpu")):
        return "host"
    return "disk"


def _size(modality: ModalityLatents) -> int:
    return len(modality.rows) * modality.values.shape[1] * modality.values.element_size()


def _described(place: Place, in_files: int, read: int, device: torch.device) -> str:
    """Return where latents wait, of which some are in files and others have been read."""
    if place == "device":
        return _on(device)
    if place == "disk" and in_files:
        beside = f" ({_in_units(read)} of them in memory, where they were read)" if read else ""
        return f"in their files, read a step ahead{beside}"
    return "in memory" + (f", gathered a step ahead for {device}" if device.type == "cuda" else "")


def _on(home: torch.device) -> str:
    return f"on {home}" if home.type == "cuda" else "in memory"


def _in_units(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
