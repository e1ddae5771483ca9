from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from fusemix.benchmarks.class_prompts import ClassPrompts, emoji_groups, load_class_prompts, packaged_class_names
from fusemix.errors import FusemixError
from fusemix.extract.datasets.emoji import emoji
from fusemix.extract.datasets.sound_classes import ESC50_FOLDS, URBANSOUND8K_FOLDS

PHOTO = "a photo of a {}."
# Classes, templates, and the start of the SHA-256 of both, so that no slip of an editor changes a figure.
PUBLISHED = {
    "cifar10": (10, 18, "1004c346"),
    "cifar100": (100, 18, "8bd1737d"),
    "emoji-groups": (9, 1, "880b3b5e"),
    "esc50": (50, 1, "07936290"),
    "flowers102": (102, 1, "5f2589ce"),
    "imagenet": (1000, 80, "53c62bac"),
    "oxford-pets": (37, 1, "4fcb8121"),
    "urbansound8k": (10, 1, "10d23274"),
}


def digest(prompts: ClassPrompts) -> str:
    return sha256("\n".join([*prompts.names, "", *prompts.templates]).encode()).hexdigest()[:8]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_lists_are_as_published(name: str) -> None:
    prompts = load_class_prompts(name)
    assert (len(prompts.names), len(prompts.templates), digest(prompts)) == PUBLISHED[name]
    assert prompts.source
    assert len(set(prompts.templates)) == len(prompts.templates)
    assert prompts.title.startswith(f"{name}/")


def test_all_packaged_lists_are_tested() -> None:
    assert packaged_class_names() == sorted(PUBLISHED)


def test_names_are_clean_and_in_the_order_of_their_numbers() -> None:
    for name in packaged_class_names():
        for text in (*load_class_prompts(name).names, *load_class_prompts(name).templates):
            assert text == " ".join(text.split())
            assert "_" not in text
    for name in ("cifar10", "cifar100", "urbansound8k"):
        assert list(load_class_prompts(name).names) == sorted(load_class_prompts(name).names)
    imagenet = load_class_prompts("imagenet").names
    known = {0: "tench", 134: "crane bird", 517: "construction crane", 744: "missile", 999: "toilet paper"}
    assert {number: imagenet[number] for number in known} == known


def test_the_sets_with_folds_have_names_and_folds() -> None:
    assert (len(load_class_prompts("esc50").names), len(ESC50_FOLDS)) == (50, 5)
    assert (len(load_class_prompts("urbansound8k").names), len(URBANSOUND8K_FOLDS)) == (10, 10)
    assert load_class_prompts("esc50").prompts("sea waves") == ["This is a sound of sea waves."]


def test_the_subset_of_imagenets_templates_is_part_of_the_whole() -> None:
    whole, some = load_class_prompts("imagenet"), load_class_prompts("imagenet", "clip-7")
    assert len(some.templates) == 7
    assert set(some.templates) < set(whole.templates)
    assert some.names == whole.names
    assert some.title == "imagenet/clip-7"


def test_the_name_goes_where_the_braces_are_and_nowhere_else() -> None:
    prompts = ClassPrompts(("cat {small}", "{0}"), ("a {} and {x}", "{} {}"))
    assert prompts.prompts("cat {small}") == ["a cat {small} and {x}", "cat {small} cat {small}"]
    assert prompts.prompts("{0}") == ["a {0} and {x}", "{0} {0}"]


@pytest.mark.parametrize(
    ("names", "templates", "said"),
    [
        (
            ("cat", "dog", "cat"),
            (PHOTO,),
            "the class name 'cat' repeats (classes 0, 2): give each class a name of its",
        ),
        (("cat", "dog"), (PHOTO, "a photo"), "the prompt template 'a photo' has no place for the name: put {} where"),
        (("cat", "dog"), (), "there is no prompt template: give at least one, such as 'a photo of a {}.'"),
        (("cat", " "), (PHOTO,), "class 1 has an empty name"),
        (("cat",), (PHOTO,), "classification needs at least two classes, not 1"),
    ],
)
def test_what_cannot_be_classified_by_is_refused(
    names: tuple[str, ...], templates: tuple[str, ...], said: str
) -> None:
    with pytest.raises(FusemixError) as error:
        ClassPrompts(names, templates)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_name_may_repeat_where_the_list_says_so() -> None:
    assert ClassPrompts(("cat", "dog", "cat"), (PHOTO,), repeated=("cat",)).names[2] == "cat"
    assert load_class_prompts("imagenet").repeated == ("missile", "sunglasses")


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "fruit.json"
    path.write_text(json.dumps({"names": ["Äpfel", "pear"], "templates": {"mine": ["{}"], "other": [PHOTO]}}))
    assert load_class_prompts(path) == ClassPrompts(("Äpfel", "pear"), ("{}",), title="fruit/mine")
    assert load_class_prompts(str(path), "other").templates == (PHOTO,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "the class names in {path} cannot be read: "),
        ("[]", "{path} must hold an object with the fields `names` and `templates`"),
        ('{"names": "cat", "templates": {"a": ["{}"]}}', "{path} needs `names`, a list of texts"),
        ('{"names": ["cat", 3], "templates": {"a": ["{}"]}}', "{path} needs `names`, a list of texts"),
        ('{"names": ["cat", "dog"]}', "{path} needs `templates`, a list of texts under each name"),
        ('{"names": ["cat", "dog"], "templates": {"a": "{}"}}', "{path} needs `templates`, a list of texts under"),
        ('{"names": ["cat", "dog"], "templates": {}}', "{path} needs `templates`, a list of texts under each name"),
        ('{"nmes": ["cat"]}', "{path} has the unknown field 'nmes': did you mean 'names'?"),
        ('{"names": ["cat", "cat"], "templates": {"a": ["{}"]}}', "the class name 'cat' repeats (classes 0, 1)"),
    ],
)
def test_a_file_that_is_not_as_described_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "own.json"
    path.write_text(content)
    with pytest.raises(FusemixError) as error:
        load_class_prompts(path)
    assert str(error.value).startswith(said.replace("{path}", str(path)))
    assert "\n" not in str(error.value)


def test_a_wrong_name_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(FusemixError, match="no class names are packaged as 'imagnet': did you mean 'imagenet'"):
        load_class_prompts("imagnet")
    with pytest.raises(FusemixError, match="imagenet has no templates 'clip7': did you mean 'clip-7'"):
        load_class_prompts("imagenet", "clip7")
    with pytest.raises(FusemixError, match=r"none\.json cannot be read"):
        load_class_prompts(tmp_path / "none.json")


def test_every_pictogram_of_the_emoji_dataset_has_a_group() -> None:
    items = list(emoji().splits)
    groups = emoji_groups(items)
    assert groups.keys() == set(items)
    assert set(groups.values()) == set(load_class_prompts("emoji-groups").names)


def test_groups_are_those_of_unicode() -> None:
    known = {
        "1F600": "Smileys & Emotion",
        "2639-FE0F": "Smileys & Emotion",
        "2639": "Smileys & Emotion",
        "1F408-200D-2B1B": "Animals & Nature",
        "1F34E": "Food & Drink",
        "1F1E9-1F1EA": "Flags",
        "0023-FE0F-20E3": "Symbols",
    }
    assert emoji_groups([*known, "0041", "nonsense"]) == known
