"""The emoji dataset with a third modality: the name of each pictogram, spoken by one of several voices.

Items, splits, pictures and captions are those of `emoji`.  A stable hash of the item says which voice speaks its
name.  eSpeak NG (GPL-3.0 or later, a program of its own) makes the sounds on first use, about a minute of work.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from ..dataset import Dataset, Sources
from ..speech import Utterance, speak_missing
from .emoji import emoji

VOICES = (
    "en+m3",
    "en+f1",
    "en-us+m1",
    "en-us+f2",
    "en-gb-scotland+m7",
    "en-gb-scotland+f4",
)


def emoji_spoken(path: Path | None = None) -> Dataset:
    """Return the dataset with the modalities `image`, `text` and `audio` (WAV files), having spoken what is missing.

    Args:
        path: folder of the sounds, 90 MB; `fusemix/emoji-spoken` in `$XDG_CACHE_HOME` or `~/.cache` if left out.

    Raises:
        FusemixError: as `emoji` and `speak_missing`.
    """
    pictograms = emoji()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = path or Path(cache).expanduser() / "fusemix" / "emoji-spoken"
    utterances = spoken_names(pictograms)
    files = {item: f"{utterance.voice}/{item}.wav" for item, utterance in utterances.items()}
    speak_missing(folder, {files[item]: utterance for item, utterance in utterances.items()})
    paths = list(files.values())
    return Dataset(
        "emoji-spoken",
        pictograms.splits,
        {
            **pictograms.modalities,
            "audio": Sources(list(files), paths, are_paths=True, locate=lambda row: folder / paths[row]),
        },
        pictograms.root,
        f"{pictograms.attribution}; names spoken by eSpeak NG",
    )


def spoken_names(pictograms: Dataset) -> Mapping[str, Utterance]:
    """Return what is said of each item: its name, which is the first of its captions."""
    texts = pictograms["text"]
    names: dict[str, str] = {}
    for item, caption in zip(texts.items, texts.values, strict=True):
        names.setdefault(item, caption)
    return {item: Utterance(names[item], voice_of(item)) for item in pictograms.splits}


def voice_of(item: str) -> str:
    """Return the voice that speaks an item's name."""
    place = blake2b(f"fusemix emoji-spoken {item}".encode(), digest_size=8).digest()
    return VOICES[int.from_bytes(place, "big") % len(VOICES)]
