"""Names of classes and the templates that make prompts of them: the published ones, in packaged files, and a user's.

Which words stand for a class moves zero-shot accuracy by more than most methods do, so a figure means something only
with its names and templates.  Each file of `class_names/` says where they were published.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from fusemix.errors import FusemixError, first_line, nearest

PLACE = "{}"
EMOJI_GROUPS = "emoji-groups"
_FIELDS = ("source", "names", "repeated", "templates", "members")


@dataclass(frozen=True)
class ClassPrompts:
    """Names of classes and templates.

    Attributes:
        names: of the C classes, in the order of their numbers.
        templates: texts with `{}` where the name goes.
        source: where they were published; empty for a user's own.
        repeated: names that several classes share all the same, as two pairs of ImageNet's do.  Such classes tie.
        title: what results call these names and templates.

    Raises:
        FusemixError: where there are not two names, one is empty or repeats, there is no template, or one has no
            place for the name.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...]
    source: str = ""
    repeated: tuple[str, ...] = ()
    title: str = "own"

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise FusemixError(f"classification needs at least two classes, not {len(self.names)}")
        empty = [number for number, name in enumerate(self.names) if not name.strip()]
        if empty:
            raise FusemixError(f"class {empty[0]} has an empty name: give each class a name")
        twice = [name for name, count in Counter(self.names).items() if count > 1 and name not in self.repeated]
        if twice:
            numbers = [number for number, name in enumerate(self.names) if name == twice[0]]
            raise FusemixError(
                f"the class name {twice[0]!r} repeats (classes {', '.join(map(str, numbers))}): give each class a"
                " name of its own, or list the name under `repeated` to let them tie"
            )
        if not self.templates:
            raise FusemixError(f"there is no prompt template: give at least one, such as 'a photo of a {PLACE}.'")
        without = [template for template in self.templates if PLACE not in template]
        if without:
            raise FusemixError(
                f"the prompt template {without[0]!r} has no place for the name: put {PLACE} where it goes, as in"
                f" 'a photo of a {PLACE}.'"
            )

    def prompts(self, name: str) -> list[str]:
        """Return the prompts of a class, one for each template."""
        return [template.replace(PLACE, name) for template in self.templates]


def packaged_class_names() -> list[str]:
    """Return the names under which class names and templates are packaged."""
    return sorted(entry.name.removesuffix(".json") for entry in _folder().iterdir() if entry.name.endswith(".json"))


def load_class_prompts(name: str | Path, templates: str = "") -> ClassPrompts:
    """Read class names and templates.

    Args:
        name: of a packaged file (`imagenet`, `esc50`), or the path of a JSON file with the same fields: `names` (a
            list), `templates` (a name for each list of templates), and, if need be, `source` and `repeated`.
        templates: which of the file's lists of templates; the first if left out.

    Raises:
        FusemixError: where there is no such file or list, the file is not as described, or as `ClassPrompts`.
    """
    record = _read(name)
    choice = templates or next(iter(record["templates"]))
    if choice not in record["templates"]:
        raise FusemixError(f"{name} has no templates {choice!r}: {nearest(choice, record['templates'])}")
    return ClassPrompts(
        tuple(record["names"]),
        tuple(record["templates"][choice]),
        record.get("source", ""),
        tuple(record.get("repeated", ())),
        f"{Path(name).stem}/{choice}",
    )


def emoji_groups(items: list[str]) -> dict[str, str]:
    """Return the group that Unicode's emoji list (`emoji-test.txt` 17.0) puts each item of the emoji dataset in.

    Args:
        items: ids of items, which are code points joined by `-`.

    Returns:
        Item -> name of its group, one of nine; items that Unicode does not list are left out.
    """
    members: Mapping[str, list[str]] = _read(EMOJI_GROUPS)["members"]
    group_of = {code: group for group, codes in members.items() for code in codes}
    # Whether a picture's name has the variation selector differs from one pictogram to the next.
    found = {item: group_of.get(item.replace("-FE0F", "")) for item in items}
    return {item: group for item, group in found.items() if group is not None}


def _folder() -> Traversable:
    return files("fusemix.benchmarks") / "class_names"


def _read(name: str | Path) -> dict[str, Any]:
    own = isinstance(name, Path) or name.endswith(".json")
    if not own and str(name) not in packaged_class_names():
        raise FusemixError(
            f"no class names are packaged as {str(name)!r}: {nearest(str(name), packaged_class_names())}; a file of"
            " your own needs its .json"
        )
    file = Path(name) if own else _folder() / f"{name}.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FusemixError(f"the class names in {name} cannot be read: {first_line(error)}") from error
    _check(name, record)
    return dict(record)


def _check(name: str | Path, record: object) -> None:
    if not isinstance(record, dict):
        raise FusemixError(f"{name} must hold an object with the fields `names` and `templates`")
    unknown = [key for key in record if key not in _FIELDS]
    if unknown:
        raise FusemixError(f"{name} has the unknown field {unknown[0]!r}: {nearest(unknown[0], _FIELDS)}")
    if not _is_texts(record.get("names")) or not _is_texts(record.get("repeated", [])):
        raise FusemixError(f"{name} needs `names`, a list of texts, and `repeated`, where there is one, likewise")
    lists = record.get("templates")
    if not isinstance(lists, dict) or not lists or not all(_is_texts(value) for value in lists.values()):
        raise FusemixError(
            f'{name} needs `templates`, a list of texts under each name: {{"mine": ["a photo of a {PLACE}."]}}'
        )


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
