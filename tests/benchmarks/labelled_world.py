"""Rows with classes, made from a few numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from fusemix.benchmarks.labelled import LabelledRows
from fusemix.latents.provenance import DatasetStamp

Floats = npt.NDArray[np.float64]


def labelled(
    features: Floats,
    labels: Sequence[int],
    *,
    classes: int,
    splits: Sequence[str] | None = None,
    items: Sequence[int] | None = None,
    kind: str = "embeddings",
) -> LabelledRows:
    """Return rows of classes named a, b, c ..., each an item of its own and all in `test` unless told otherwise."""
    return LabelledRows(
        torch.from_numpy(np.asarray(features)).float(),
        np.asarray(labels, np.int64),
        tuple(chr(ord("a") + number) for number in range(classes)),
        np.arange(len(labels)) if items is None else np.asarray(items, np.int64),
        np.array(["test"] * len(labels) if splits is None else list(splits), object),
        "image",
        kind,
        DatasetStamp("small", "f00d"),
    )


def clusters(
    rows: int, classes: int, dim: int, *, noise: float, seed: int, splits: Sequence[str] = ("train", "val", "test")
) -> LabelledRows:
    """Return rows around a centre for each class, in splits at random."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=rows)
    features = rng.normal(size=(classes, dim))[labels] + noise * rng.normal(size=(rows, dim))
    return labelled(features, labels.tolist(), classes=classes, splits=rng.choice(list(splits), rows).tolist())
