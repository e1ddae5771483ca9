"""Sounds of three samples that are a colour, and their encoder, for runs of three modalities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import torch

from tests.extract.colours import Colours, colour

RATE = 8000
ENTRY_POINTS = "[fusemix.encoders]\nheard-colours = tests.fusemix.commands.heard_colours:of_sounds\n"


def write_sound(path: Path, row: int) -> Path:
    """Write the colour of a row as a sound."""
    soundfile.write(path, np.array(colour(row)) / 256, RATE, subtype="PCM_16", format="WAV")
    return path


def heard_colour(source: Path) -> npt.NDArray[np.uint8]:
    """Read a sound as one pixel."""
    samples: npt.NDArray[np.float64] = soundfile.read(source)[0]
    return np.round(256 * samples[None, None]).astype(np.uint8)


class HeardColours(Colours):
    """Sounds of one colour -> red, green and blue in [0, 1]."""

    def __init__(self) -> None:
        super().__init__("text", "heard-colours")
        self.preprocess = heard_colour
        self.spec = type(self.spec)(name="heard-colours", modality="audio", dim=3, weights="none")


def of_sounds(device: torch.device) -> HeardColours:
    """Make the encoder of sounds, as the registry does."""
    return HeardColours()


def install(folder: Path) -> Path:
    """Write what an installed package with this encoder leaves in site-packages; return that folder."""
    package = folder / "site" / "heard_colours-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: heard-colours\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    return package.parent
