"""The keys that a recipe may have, found from the dataclasses that it fills.

Some keys are names that the user chooses (`fuse.adapters.text`), with keys of their own below them that are not.
jsonargparse tells of a misspelt one neither the place nor what was meant, so what is given is compared here with the
types of the fields, before it sees anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from fusemix.errors import FusemixError, nearest


def check_keys(given: object, kind: object, key: str = "") -> None:
    """Refuse keys that do not exist, at any depth, and anything else where keys belong.

    Values are left to those who read them, and so are the free settings of datasets and encoders.

    Args:
        given: what stands at the key, as YAML has it.
        kind: the type that it will become: a dataclass, a mapping of names or a tuple of these, or another.
        key: where it stands (`fuse.adapters`); empty for the recipe itself.

    Raises:
        FusemixError: naming the key and the nearest valid one.
    """
    if _is_dataclass(kind):
        for name, value in _keys_at(given, key).items():
            if name not in get_type_hints(kind):
                # In the recipe itself, what belongs into a section may have been meant.
                valid = get_type_hints(kind) if key else all_keys(kind)
                raise FusemixError(f"unknown key {_below(key, name)!r}: {nearest(name, valid)}")
            check_keys(value, get_type_hints(kind)[name], _below(key, name))
    elif (inner := _inner(kind, Mapping)) is not None:
        for name, value in _keys_at(given, key).items():
            check_keys(value, inner, _below(key, name))
    elif (inner := _inner(kind, tuple)) is not None and isinstance(given, list):
        for place, value in enumerate(given, start=1):
            check_keys(value, inner, f"{key}[{place}]")


def kind_of(kind: Any, key: str) -> object:
    """Return the type of what stands at a key (`fuse.adapters.text`), or None where nothing does."""
    for name in key.split("."):
        kind = get_type_hints(kind).get(name) if _is_dataclass(kind) else _inner(kind, Mapping)
    return kind


def all_keys(kind: Any, prefix: str = "") -> Iterator[str]:
    """Yield the keys of a dataclass and of those in it, without those below names that the user chooses."""
    for name, of in get_type_hints(kind).items():
        yield prefix + name
        if _is_dataclass(of):
            yield from all_keys(of, f"{prefix}{name}.")


def _keys_at(given: object, key: str) -> Mapping[str, object]:
    if not isinstance(given, Mapping):
        raise FusemixError(f"{key!r} must hold keys of its own, not {given!r}")
    return {str(name): value for name, value in given.items()}


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _inner(kind: object, container: type) -> object | None:
    """Return the type of what a mapping of names or a tuple holds; None where it is another type."""
    origin, held = get_origin(kind), get_args(kind)
    if not isinstance(origin, type) or not issubclass(origin, container):
        return None
    inner: object = held[1] if container is Mapping else held[0]
    return inner


def _is_dataclass(kind: object) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)
