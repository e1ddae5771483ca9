"""The emoji dataset with a third modality: the names of each pictogram, spoken by one of several voices.

Items, splits, pictures and captions are those of `emoji`, and every caption is spoken once.  A stable hash of the
item says which voice speaks its names.  eSpeak NG (GPL-3.0 or later, a program of its own) makes the sounds on first
use, about two minutes of work.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from ..dataset import Dataset, Sources
from ..speech import Utterance, speak_missing
from .emoji import emoji

# Of one accent: by a ridge map from Whisper tiny to texts, training items only, four of these were as good as one
# voice (MRR 0.183 and 0.185), and six of three accents were not (0.149).
VOICES = ("en-us+m1", "en-us+m3", "en-us+f1", "en-us+f2")


def emoji_spoken(path: Path | None = None) -> Dataset:
    """Return the dataset with the modalities `image`, `text` and `audio` (WAV files), having spoken what is missing.

    Args:
        path: folder of the sounds, 130 MB; `fusemix/emoji-spoken` in `$XDG_CACHE_HOME` or `~/.cache` if left out.

    Raises:
        FusemixError: as `emoji` and `speak_missing`.
    """
    pictograms = emoji()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = path or Path(cache).expanduser() / "fusemix" / "emoji-spoken"
    utterances = spoken_names(pictograms)
    speak_missing(folder, utterances)
    paths = list(utterances)
    return Dataset(
        "emoji-spoken",
        pictograms.splits,
        {
            **pictograms.modalities,
            "audio": Sources(pictograms["text"].items, paths, are_paths=True, locate=lambda row: folder / paths[row]),
        },
        pictograms.root,
        f"{pictograms.attribution}; names spoken by eSpeak NG",
    )


def spoken_names(pictograms: Dataset) -> Mapping[str, Utterance]:
    """Return what is said of each item, in the order of the captions: path of the sound -> a caption and a voice."""
    texts = pictograms["text"]
    spoken: dict[str, Utterance] = {}
    names = Counter[str]()
    for item, caption in zip(texts.items, texts.values, strict=True):
        names[item] += 1
        spoken[f"{voice_of(item)}/{item}-{names[item]}.wav"] = Utterance(caption, voice_of(item))
    return spoken


def voice_of(item: str) -> str:
    """Return the voice that speaks an item's names."""
    place = blake2b(f"fusemix emoji-spoken {item}".encode(), digest_size=8).digest()
    return VOICES[int.from_bytes(place, "big") % len(VOICES)]
