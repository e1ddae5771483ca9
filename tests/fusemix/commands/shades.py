"""A run whose joint space is that of colours itself, and datasets of shades whose class is a primary colour."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusemix.adapters.identity import IdentityAdapter
from fusemix.joint_space import JointSpace
from fusemix.latents.file import LatentsFile
from fusemix.latents.provenance import DatasetStamp, EncoderSpec
from fusemix.recipe import Recipe
from tests.extract.colours import of_captions, of_pictures

PRIMARY = ("255 0 0", "0 255 0", "0 0 255")
ITEMS = 60
CPU = torch.device("cpu")
SPECS = {"image": of_pictures(CPU).spec, "text": of_captions(CPU).spec}


def write_shades(root: Path) -> Path:
    """Write the run `shades`, its dataset `shades`, one in folds, one by another encoder; return the run."""
    write_dataset(root, "shades", [("train", "train", "val", "test")[row % 4] for row in range(ITEMS)])
    write_dataset(root, "folded", [f"fold{1 + row % 3}" for row in range(ITEMS)])
    other = {**SPECS, "image": replace(SPECS["image"], name="other-colours")}
    write_dataset(root, "strange", [("train", "train", "val", "test")[row % 4] for row in range(ITEMS)], other)
    run = write_run(root, "shades", {"reader": "manifest", "path": "none.csv", "name": "shades"})
    write_classes(root / "primary.json", PRIMARY)
    return run


def write_run(root: Path, name: str, dataset: Any) -> Path:
    """Write a run over the colours of pictures and captions."""
    run = root / "runs" / name
    JointSpace({name: IdentityAdapter(3, 3) for name in SPECS}, {"shared": 0.07}, SPECS).save(run / "joint_space")
    Recipe(name, dataset, {"image": "colours", "text": "written-colours"}).save(run / "recipe.yaml")
    return run


def write_dataset(root: Path, name: str, splits: Sequence[str], specs: Mapping[str, EncoderSpec] = SPECS) -> None:
    """Write shades as latents of pictures, and the names of their colours as latents of captions."""
    rng = np.random.default_rng(0)
    classes = rng.integers(3, size=ITEMS)
    latents = {"image": rng.random((ITEMS, 3)) + 0.5 * np.eye(3)[classes], "text": np.eye(3)[classes]}
    sources = {"image": [f"{row}.png" for row in range(ITEMS)], "text": [PRIMARY[number] for number in classes]}
    for modality, encoder in {"image": "colours", "text": "written-colours"}.items():
        LatentsFile.from_arrays(
            root / "latents" / name / modality / f"{encoder}.h5",
            [f"item{row:02}" for row in range(ITEMS)],
            latents[modality],
            specs[modality],
            splits=splits,
            sources=sources[modality],
            dataset=DatasetStamp(name),
        )


def write_classes(path: Path, names: Sequence[str], templates: Sequence[str] = ("{}",)) -> Path:
    """Write class names with a list of templates."""
    path.write_text(json.dumps({"names": list(names), "templates": {"plain": list(templates)}}))
    return path
