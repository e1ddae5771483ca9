"""Options of the command line: unknown ones are refused by name, and those of free settings change one setting.

`--dataset.path X`, `--encoders.text.pooling cls`, `--fuse.adapters.text.depth 2` and `--fuse.dataset_weights.coco 2`
merge into what the recipe says of the dataset, the encoder, the adapter or the weights.  jsonargparse does not know
what stands below a name that the user chose, so it would put the one setting in the place of the whole.
"""

from __future__ import annotations

import re
from argparse import SUPPRESS
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace

from fusemix.adapters.settings import AdapterSettings
from fusemix.errors import FusemixError, nearest
from fusemix.extract.settings import DatasetChoice

ADAPTERS, WEIGHTS = "fuse.adapters", "fuse.dataset_weights"
FREE_KEYS = ("dataset.", "encoders.", f"{ADAPTERS}.", f"{WEIGHTS}.")
# A dataset's name may have dots in it, a modality's may not.
_FREE_SETTING = re.compile(
    r"--(?:(?P<key>dataset|encoders\.[^.=]+|fuse\.adapters\.[^.=]+)\.(?P<setting>[^.=]+)"
    r"|fuse\.dataset_weights\.(?P<weighed>[^=]+)"
    r"|(?P<adapters>fuse\.adapters(?:\.[^.=]+)?))(?:=(?P<value>.*))?",
    re.DOTALL,
)
# A number to jsonargparse, which reads recipes, and to YAML 1.2, but text to PyYAML.
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


@dataclass(frozen=True)
class FreeSetting:
    """One setting below a name of the user's, as the command line has it."""

    key: str
    """`dataset`, `encoders.text`, `fuse.adapters`, `fuse.adapters.text` or `fuse.dataset_weights`."""
    name: str
    """What to change there; empty for all of it."""
    value: str
    """The new value, as written."""

    @property
    def flag(self) -> str:
        """The option that gave it."""
        return f"--{self.key}.{self.name}"


def check_flags(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Refuse an option that a parser does not have.

    Raises:
        FusemixError: naming the option and the nearest valid one.
    """
    flags = {option for action in parser._actions if action.help != SUPPRESS for option in action.option_strings}
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag not in flags and not flag[2:].startswith(FREE_KEYS):
            raise FusemixError(f"unknown option {flag}: {nearest(flag, flags)}")


def split_settings(arguments: Sequence[str]) -> tuple[list[str], list[FreeSetting]]:
    """Take the flags of free settings out of the others; return the others, and those settings."""
    plain: list[str] = []
    free: list[FreeSetting] = []
    left = iter(arguments)
    for argument in left:
        if match := _FREE_SETTING.fullmatch(argument):
            value = match["value"]
            if value is None and (value := next(left, None)) is None:
                raise FusemixError(f"option {argument}: expected a value")
            key, name = match["adapters"] or match["key"] or WEIGHTS, match["setting"] or match["weighed"] or ""
            free.append(FreeSetting(key, name, value))
        else:
            plain.append(argument)
    return plain, free


def yaml_values(arguments: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Yield the key of each flag, and what follows it as YAML has it; what is no YAML is left out."""
    for index, argument in enumerate(arguments):
        flag, given, text = argument.partition("=")
        if flag.startswith("--"):
            with suppress(yaml.YAMLError):
                yield flag[2:], yaml.safe_load(text if given else next(iter(arguments[index + 1 :]), ""))


def merge_settings(values: Namespace, free: Sequence[FreeSetting]) -> None:
    """Change single settings of what jsonargparse has read.

    An adapter that only flags speak of is, for the rest, the one that is for all modalities; a flag that gives it
    another kind starts a new one, because settings of one kind are of no use to another.

    Raises:
        FusemixError: where what a setting belongs to is not there or is a list, or an adapter has no such setting.
    """
    for setting in sorted(free, key=_order):
        if setting.key == WEIGHTS:
            values.fuse.dataset_weights = {**values.fuse.dataset_weights, setting.name: setting_value(setting.value)}
        elif setting.key == ADAPTERS:
            values.fuse.adapters = setting_value(setting.value)
        elif setting.key.startswith(ADAPTERS):
            values.fuse.adapters = {**values.fuse.adapters, **_adapter(values.fuse, setting)}
        else:
            _merge_choice(values, setting)


def _order(setting: FreeSetting) -> int:
    """Return when a setting has its turn: what others are merged into goes first, wherever it stands."""
    if not setting.key.startswith(ADAPTERS) or setting.key == ADAPTERS:
        return 0
    return 1 if not setting.name else 2 if setting.name == "kind" else 3


def _adapter(fuse: Namespace, setting: FreeSetting) -> dict[str, object]:
    """Return the modality and its adapter, changed by a setting."""
    modality, value, valid = (
        setting.key.rpartition(".")[2],
        setting_value(setting.value),
        get_type_hints(AdapterSettings),
    )
    if not setting.name:
        return {modality: value}
    if setting.name not in valid:
        raise FusemixError(
            f"{setting.flag}: an adapter has no setting {setting.name!r}: {nearest(setting.name, valid)}"
        )
    before = dict(fuse.adapters.get(modality, fuse.adapter))
    starts_anew = setting.name == "kind" and value != before.get("kind", AdapterSettings.kind)
    return {modality: {**({} if starts_anew else before), setting.name: value}}


def _merge_choice(values: Namespace, setting: FreeSetting) -> None:
    """Change one setting of a dataset or an encoder, which may have been given by its name alone."""
    section, _, modality = setting.key.partition(".")
    holder, name = (values.encoders, modality) if modality else (values, section)
    if modality and modality not in holder:
        raise FusemixError(f"{setting.flag}: the recipe has no {setting.key!r}: {nearest(modality, holder)}")
    given = holder[name]
    if isinstance(given, list | tuple):
        what = "encoders" if modality else "datasets"
        raise FusemixError(
            f"{setting.flag}: {setting.key} is a list of {what}; give it whole, as --{setting.key} '[...]'"
        )
    if isinstance(given, str):
        given = {"name": given} if modality else dataset_mapping(DatasetChoice.of(given))
    holder[name] = {**given, setting.name: setting_value(setting.value)}


def setting_value(text: str) -> object:
    """Return the value that a free setting has on the command line: as in YAML where that is no text, else as it is.

    So `-2`, `1e-3`, `true`, `null`, `[a, b]` and `"3"` are what they are in a recipe, and `query: ` is no mapping.
    """
    if _EXPONENT.fullmatch(text):
        return float(text)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    is_yaml = text[:1] in ("[", "{", '"', "'") or isinstance(value, int | float) or text in ("null", "~")
    return value if is_yaml else text


def dataset_mapping(choice: DatasetChoice) -> dict[str, Any]:
    """Return a dataset as a recipe holds it, the inverse of `DatasetChoice.of`."""
    place = {key: value for key, value in (("path", choice.path), ("name", choice.name)) if value is not None}
    return {"reader": choice.reader, **place, **choice.settings}
