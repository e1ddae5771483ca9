"""The classes of a dataset's items as a user has them in a file.

The name of the file says how to read it: `.csv` and `.tsv` have the columns `item` and `label`, so that a manifest
with a column more will do; `.json` is an object, item -> label; of a latents file the captions are the labels, as
ESC-50 and UrbanSound8K have them.  An empty label leaves its item out on purpose; an item without one is a mistake.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fusemix.errors import FusemixError, first_line
from fusemix.extract.datasets.tables import csv_records
from fusemix.latents.file import LatentsFile

DELIMITERS = {".csv": ",", ".tsv": "\t"}
KINDS = ".csv, .tsv, .json or .h5"

Label = str | int | None


def read_labels(path: Path, names: Sequence[str] | None = None) -> dict[str, Label]:
    """Return item -> name or number of its class, None where the file leaves it out.

    Args:
        path: the file.
        names: of the classes; a text that is none of them but a number is taken as one.  Without names every label
            is a name.

    Raises:
        FusemixError: where the file cannot be read or an item has two labels.
    """
    if not path.is_file():
        raise FusemixError(f"no labels at {path}: name a file that ends in {KINDS}")
    labels: dict[str, Label] = {}
    for item, given in _entries(path):
        label = _label(given, names)
        if labels.setdefault(item, label) != label:
            raise FusemixError(f"{path}: item {item!r} has the labels {labels[item]!r} and {label!r}")
    return labels


def _entries(path: Path) -> Iterable[tuple[str, Label]]:
    ending = path.suffix.lower()
    if ending in DELIMITERS:
        records = csv_records(path, delimiter=DELIMITERS[ending], required=("item", "label"))
        return ((record["item"], record["label"]) for _, record in records)
    if ending == ".json":
        return _of_json(path)
    if ending == ".h5":
        file = LatentsFile(path)
        return zip(file.items.tolist(), file.sources.tolist(), strict=True)
    raise FusemixError(f"{path}: labels are read from a file that ends in {KINDS}")


def _of_json(path: Path) -> Iterator[tuple[str, Label]]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FusemixError(f"the labels in {path} cannot be read: {first_line(error)}") from error
    if not isinstance(record, dict):
        raise FusemixError(f'{path} must hold an object, item -> label: {{"item 1": "cat", "item 2": "dog"}}')
    for item, label in record.items():
        if isinstance(label, bool) or not isinstance(label, str | int | None):
            raise FusemixError(f"{path}: item {item!r} has the label {label!r}: give a name or a number")
        yield item, label


def _label(given: Label, names: Sequence[str] | None) -> Label:
    if names is not None and isinstance(given, int):
        return given
    text = "" if given is None else str(given).strip()
    if names is not None and text not in names and text.isdecimal():
        return int(text)
    return text or None
