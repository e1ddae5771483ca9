"""A manifest of coloured pictures with captions, a recipe for it, and encoders found by entry point."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path

import torch
from PIL import Image

from tests.extract.colours import Colours, colour

REPOSITORY = Path(__file__).parents[3]
RECIPE = """
name: mine
dataset: {{reader: manifest, path: {folder}/pairs.csv}}
encoders: {{image: colours, text: written-colours}}
extract: {{workers: 1, block_rows: 4}}
fuse: {{steps: 4, warmup_steps: 1, validate_every: 2, batch_size: 8, joint_dim: 8, adapter: {{depth: 0}}}}
benchmark: {{draws: 9, seeds: [0]}}
"""
ENTRY_POINTS = """
[fusemix.encoders]
colours = tests.extract.colours:of_pictures
written-colours = tests.extract.colours:of_captions
same-written-colours = tests.fusemix.commands.small_world:of_captions_again
bright-colours = tests.fusemix.commands.small_world:of_bright_captions
named-colours = tests.fusemix.commands.small_world:of_names
"""


def write_world(folder: Path, rows: int = 8, broken: Collection[int] = ()) -> Path:
    """Write pictures, captions, manifest and recipe; return the recipe.

    Args:
        folder: where.
        rows: number of items, each with a picture and a caption.
        broken: rows whose picture is none.
    """
    lines = ["item,image,text,split"]
    for row in range(rows):
        picture = folder / f"{row:03}.png"
        if row in broken:
            picture.write_text("no picture")
        else:
            mended(picture)
        red, green, blue = colour(row)
        lines.append(f"item{row:03},{picture.name},{red} {green} {blue},{('train', 'train', 'val', 'test')[row % 4]}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    recipe = folder / "mine.yaml"
    recipe.write_text(RECIPE.format(folder=folder))
    return recipe


def mended(picture: Path) -> Path:
    """Write the picture that belongs into a file such as 003.png."""
    Image.new("RGB", (5, 3), colour(int(picture.stem))).save(picture)
    return picture


def install_encoders(folder: Path) -> Path:
    """Write what an installed package with the encoders of colours leaves in site-packages; return that folder."""
    package = folder / "site" / "colours-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: colours\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    return package.parent


def environment(site: Path) -> dict[str, str]:
    """Return the environment of a process that finds the encoders."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(REPOSITORY)]), "COLUMNS": "80"}


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of `fusemix`."""
    return [sys.executable, "-c", "from fusemix.cli import main; main()", *map(str, arguments)]


def of_captions_again(device: torch.device) -> Colours:
    """Make another encoder of captions."""
    return Colours("text", "same-written-colours")


def of_names(device: torch.device) -> Colours:
    """Make an encoder of a modality that no other encodes."""
    return Colours("name", "named-colours")


def of_bright_captions(device: torch.device, *, times: int = 1, cut: bool = True) -> Colours:
    """Make an encoder that has settings."""
    return Colours("text", f"bright-colours times {times}, cut {cut}")
