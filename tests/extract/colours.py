"""Pictures and captions of one colour each, and an encoder whose latent of them is known: the colour itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from fusemix.extract import Dataset, Sources
from fusemix.extract.images import SquareImage
from fusemix.latents.provenance import EncoderSpec


def colour(row: int) -> tuple[int, int, int]:
    """Return a colour that no other row has."""
    return row % 256, row // 256, 255 - row % 256


def row_of(pixel: npt.NDArray[Any]) -> int:
    """Return the row that has a colour."""
    return int(pixel[0]) + 256 * int(pixel[1])


def expected_latents(rows: int) -> npt.NDArray[np.float16]:
    """Return what the encoder gives for the rows of `coloured`, as it is stored."""
    return (np.array([colour(row) for row in range(rows)], np.float32) / 255).astype(np.float16)


def coloured(folder: Path, rows: int) -> Dataset:
    """Return a dataset of `rows` items, each a PNG and a caption; writes the pictures that are not there."""
    items = [f"item{row:04}" for row in range(rows)]
    for row, item in enumerate(items):
        if not (folder / f"{item}.png").exists():
            Image.new("RGB", (5, 3), colour(row)).save(folder / f"{item}.png")
    return Dataset(
        "coloured",
        {item: ("train", "train", "val", "test")[row % 4] for row, item in enumerate(items)},
        {
            "image": Sources(items, [f"{item}.png" for item in items], are_paths=True),
            "text": Sources(items, [" ".join(map(str, colour(row))) for row in range(rows)], are_paths=False),
        },
        folder,
    )


def written_colour(caption: str) -> npt.NDArray[np.uint8]:
    """Read a caption such as `255 0 12` as one pixel."""
    return np.array([[caption.split()]]).astype(np.uint8)


class Colours:
    """Things of one colour -> red, green and blue in [0, 1]."""

    batch_cost = 4

    def __init__(self, modality: str = "image", name: str = "colours") -> None:
        self.preprocess: Callable[[Any], Any] = SquareImage(4) if modality == "image" else written_colour
        self.spec = EncoderSpec(name=name, modality=modality, dim=3, weights="none")

    def cost(self, prepared: npt.NDArray[np.uint8]) -> int:
        return 1

    def collate(self, prepared: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        return torch.from_numpy(np.stack(prepared)[:, 0, 0])

    def encode(self, batch: Tensor) -> Tensor:
        return batch.float() / 255


class Refusing(Colours):
    """Raises where a batch of captions holds a row that it does not like, and remembers which it encoded."""

    def __init__(self, refused: Sequence[int] = (), error: type[BaseException] = ValueError) -> None:
        super().__init__("text")
        self.refused, self.error = set(refused), error
        self.encoded: list[int] = []

    def encode(self, batch: Tensor) -> Tensor:
        rows = [row_of(pixel) for pixel in batch.numpy()]
        if self.refused & set(rows):
            raise self.error("no such colour")
        self.encoded += rows
        return super().encode(batch)


def of_pictures(device: torch.device) -> Colours:
    """Make the encoder of pictures, as the registry does."""
    return Colours("image", "colours")


def of_captions(device: torch.device) -> Colours:
    """Make the encoder of captions, as the registry does."""
    return Colours("text", "written-colours")
