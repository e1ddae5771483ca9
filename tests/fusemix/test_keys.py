from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from fusemix.errors import FusemixError
from fusemix.keys import all_keys, check_keys, kind_of


@dataclass(frozen=True)
class Inner:
    width: int = 1
    height: int = 2


@dataclass(frozen=True)
class Section:
    inner: Inner = field(default_factory=Inner)
    named: Mapping[str, Inner] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    listed: tuple[Inner, ...] = ()
    numbers: tuple[int, ...] = ()
    free: dict[str, object] | str | None = None


@dataclass(frozen=True)
class Whole:
    name: str = ""
    section: Section = field(default_factory=Section)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"name": 3, "section": {"inner": {"width": "any value"}}},
        {"section": {"named": {"a": {"height": 1}, "b": {}}, "weights": {"any.name": 1}, "listed": [{"width": 1}]}},
        {"section": {"numbers": [1], "listed": "not a list", "free": {"any": {"depth": 1}}}},
    ],
)
def test_keys_that_exist_are_taken_and_values_are_left_to_others(given: object) -> None:
    check_keys(given, Whole)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nme": 1}, "unknown key 'nme': did you mean 'name'?"),
        ({"weights": 1}, "unknown key 'weights': did you mean 'section.weights'?"),
        ({"section": {"iner": {}}}, "unknown key 'section.iner': did you mean 'inner'?"),
        ({"section": {"inner": {"zoo": 1}}}, "unknown key 'section.inner.zoo': choose one of height, width"),
        ({"section": {"named": {"a": {"wide": 1}}}}, "unknown key 'section.named.a.wide': did you mean 'width'?"),
        (
            {"section": {"listed": [{}, {"hight": 1}]}},
            "unknown key 'section.listed[2].hight': did you mean 'height'?",
        ),
        ({"section": {1: 2}}, "unknown key 'section.1': "),
        ({"section": None}, "'section' must hold keys of its own, not None"),
        ({"section": {"named": [1]}}, "'section.named' must hold keys of its own, not [1]"),
        ({"section": {"named": {"a": 1}}}, "'section.named.a' must hold keys of its own, not 1"),
        ({"section": {"weights": 1}}, "'section.weights' must hold keys of its own, not 1"),
        ({"section": {"listed": [1]}}, "'section.listed[1]' must hold keys of its own, not 1"),
    ],
)
def test_a_key_that_does_not_exist_is_named_with_the_nearest(given: object, message: str) -> None:
    with pytest.raises(FusemixError) as told:
        check_keys(given, Whole)
    assert str(told.value).startswith(message)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("name", str),
        ("section", Section),
        ("section.inner.width", int),
        ("section.named", Mapping[str, Inner]),
        ("section.named.any", Inner),
        ("section.named.any.height", int),
        ("section.weights.any", float),
        ("section.listed", tuple[Inner, ...]),
        ("section.free.any", None),
        ("section.none.any", None),
        ("name.any", None),
    ],
)
def test_the_type_at_a_key(key: str, kind: object) -> None:
    assert kind_of(Whole, key) == kind


def test_all_keys_are_those_of_fields_without_names_of_the_user() -> None:
    assert list(all_keys(Whole)) == [
        "name",
        "section",
        "section.inner",
        "section.inner.width",
        "section.inner.height",
        "section.named",
        "section.weights",
        "section.listed",
        "section.numbers",
        "section.free",
    ]
