"""Datasets by the name of what reads them.

A reader is a function `read(path, *, name=None, setting=default, ...) -> Dataset`, imported only when it is asked
for.  It lists items and sources and decodes nothing.  `path` is the file or folder that it reads, `name` what the
dataset shall be called; all else are settings, and its signature is their only declaration.  A packaged dataset
needs no path: it has no such parameter, or writes there what it makes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from fusemix.errors import FusemixError, nearest

from ..arguments import checked_settings
from ..dataset import Dataset
from ..settings import DatasetChoice

_READERS = {
    "audiocaps": "fusemix.extract.datasets.sound_captions:audiocaps",
    "clotho": "fusemix.extract.datasets.sound_captions:clotho",
    "coco": "fusemix.extract.datasets.karpathy:coco",
    "emoji": "fusemix.extract.datasets.emoji:emoji",
    "emoji-spoken": "fusemix.extract.datasets.emoji_spoken:emoji_spoken",
    "esc50": "fusemix.extract.datasets.sound_classes:esc50",
    "flickr30k": "fusemix.extract.datasets.karpathy:flickr30k",
    "folder": "fusemix.extract.datasets.folder:read_folder",
    "manifest": "fusemix.extract.datasets.manifest:read_manifest",
    "urbansound8k": "fusemix.extract.datasets.sound_classes:urbansound8k",
    "visual-genome": "fusemix.extract.datasets.visual_genome:visual_genome",
    "webdataset": "fusemix.extract.datasets.webdataset:read_webdataset",
}


def load_dataset(choice: str | Mapping[str, object] | DatasetChoice) -> Dataset:
    """Return a dataset: its items, splits and sources, nothing decoded.

    Args:
        choice: `emoji`, `pairs.csv`, or `{reader: folder, path: photos, name: mine, split: test}`, where all keys
            but the first three are settings of the reader.  A path is relative to the current folder.

    Raises:
        FusemixError: for an unknown reader or setting, or where the files are missing or not what the reader reads.
    """
    choice = DatasetChoice.of(choice)
    if choice.reader not in _READERS:
        raise FusemixError(f"unknown dataset {choice.reader!r}: {nearest(choice.reader, _READERS)}")
    what = f"dataset {choice.reader!r}"
    module, _, function = _READERS[choice.reader].partition(":")
    read: Callable[..., Dataset] = getattr(import_module(module), function)
    arguments = checked_settings(what, read, choice.settings, given_by_us=frozenset({"path", "name"}))
    accepted = inspect.signature(read).parameters
    for key, value in (("path", choice.path), ("name", choice.name)):
        if value is not None and key not in accepted:
            raise FusemixError(f"{what} takes no {key}: leave it out")
    if choice.path is None and "path" in accepted and accepted["path"].default is inspect.Parameter.empty:
        raise FusemixError(f"{what} needs the path of what it reads: {{reader: {choice.reader}, path: ...}}")
    if choice.name is not None:
        arguments["name"] = choice.name
    try:
        if choice.path is not None:
            arguments["path"] = Path(choice.path).expanduser()
        return read(**arguments)
    except OSError as error:
        raise FusemixError(f"{what}: {error.filename or choice.path}: {error.strerror or error}") from error


def dataset_readers() -> list[str]:
    """Return the names of all readers; imports none of them."""
    return sorted(_READERS)
