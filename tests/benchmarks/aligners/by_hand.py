"""Training pairs as matrices, put together item by item in float64, and joint spaces seen from outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.objective import Edge
from fusemix.training.validation import Validation

Matrix = npt.NDArray[np.float64]


def rows_of(latents: PairedLatents, modality: str) -> tuple[Matrix, npt.NDArray[np.int64]]:
    """Return a modality's latents and the item of each."""
    of = latents[modality]
    return of.values[of.rows].double().numpy(), of.item_of_row.numpy()


def pairs_of(latents: PairedLatents) -> tuple[Matrix, Matrix]:
    """Return the mean image and the mean text of each training item that has both."""
    train = latents.split("train")
    (images, of_image), (texts, of_text) = rows_of(train, "image"), rows_of(train, "text")
    both = sorted(set(of_image) & set(of_text))
    assert 0 < len(both) < len(train), "some items lack a modality"
    return tuple(  # type: ignore[return-value]
        np.stack([values[of == item].mean(axis=0) for item in both])
        for values, of in ((images, of_image), (texts, of_text))
    )


def statistics(latents: PairedLatents, modality: str) -> tuple[Matrix, Matrix]:
    """Return mean and standard deviation over all training rows."""
    values, _ = rows_of(latents.split("train"), modality)
    return values.mean(axis=0), values.std(axis=0)


def everything(latents: PairedLatents, modality: str) -> Matrix:
    """Return the latents of all splits."""
    return np.asarray(latents[modality].values.double().numpy())


def unit(values: Matrix) -> Matrix:
    """Return rows of length 1."""
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def cosines(space: JointSpace, latents: PairedLatents) -> Matrix:
    """Return the cosines of all images with all texts, which do not tell a joint space from its rotation."""
    images, texts = (space.encode(name, latents[name].values).double().numpy() for name in ("image", "text"))
    return np.asarray(images @ texts.T)


def mrr(space: JointSpace, latents: PairedLatents) -> float:
    """Return the figure that chooses."""
    return Validation(latents.split("val"), [Edge("image", "text")])(space)["mrr"]


def assert_saved_as_it_is(space: JointSpace, latents: PairedLatents, folder: Path) -> None:
    """Save and load a joint space, and compare embeddings and encoders."""
    space.save(folder)
    loaded = JointSpace.load(folder)
    assert loaded.specs == {modality: of.spec for modality, of in latents.modalities.items()}
    for modality, of in latents.modalities.items():
        assert torch.equal(loaded.encode(modality, of.values), space.encode(modality, of.values))
