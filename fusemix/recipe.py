"""A recipe: dataset, encoders, and the settings of every stage, as YAML and command line fill them."""

from __future__ import annotations

import json
from argparse import SUPPRESS, ArgumentError
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from fusemix.benchmarks.settings import BenchmarkSettings
from fusemix.errors import FusemixError, nearest
from fusemix.extract.settings import ExtractSettings
from fusemix.files import replacing
from fusemix.training.settings import FuseSettings

set_parsing_settings(docstring_parse_attribute_docstrings=True)


@dataclass(frozen=True)
class Recipe:
    """All that a run needs to be repeated."""

    name: str
    """Names the run unless --run does."""
    dataset: str
    """Name of the dataset."""
    encoders: dict[str, str]
    """Modality -> encoder, for example {image: efficientnet-lite0, text: minilm-l6-v2}."""
    extract: ExtractSettings = field(default_factory=ExtractSettings)
    """How raw items become latents."""
    fuse: FuseSettings = field(default_factory=FuseSettings)
    """How adapters are trained."""
    benchmark: BenchmarkSettings = field(default_factory=BenchmarkSettings)
    """What is measured afterwards."""

    def __post_init__(self) -> None:
        if len(self.encoders) < 2:
            raise FusemixError(f"encoders: a recipe names two modalities or more, not {self.encoders}")

    def save(self, path: Path) -> None:
        """Write the recipe, every default spelled out."""
        with replacing(path) as temporary:
            temporary.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(self))), sort_keys=False))


def packaged_recipes() -> list[str]:
    """Return the names of the recipes that come with fusemix."""
    folder = files("fusemix") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_path(name: str) -> Path:
    """Return the file of a recipe given by name or path.

    Raises:
        FusemixError: where there is neither.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise FusemixError(f"no recipe file at {name}")
        return Path(name)
    if name not in packaged_recipes():
        raise FusemixError(
            f"unknown recipe {name!r}: {nearest(name, packaged_recipes())}; a file of your own needs its .yaml"
        )
    return Path(str(files("fusemix") / "recipes" / f"{name}.yaml"))


def add_recipe_arguments(parser: ArgumentParser) -> None:
    """Add `--recipe` and a flag for each of a recipe's fields."""
    parser.add_argument("--recipe", action="config", help=SUPPRESS)
    parser.add_class_arguments(Recipe, None)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and change some of its fields.

    Args:
        path: a YAML file.
        overrides: as on the command line, for example `["--fuse.batch_size", "512"]`.

    Raises:
        FusemixError: as `parse_recipe`.
    """
    parser = ArgumentParser(prog="recipe", exit_on_error=False, allow_abbrev=False)
    add_recipe_arguments(parser)
    return parse_recipe(parser, path, overrides)[0]


def parse_recipe(parser: ArgumentParser, path: Path, arguments: Sequence[str]) -> tuple[Recipe, Namespace]:
    """Read a recipe, change fields by arguments, and return it with the parser's other arguments.

    Args:
        parser: has the arguments of `add_recipe_arguments`, perhaps others.
        path: a YAML file.
        arguments: flags and values.

    Raises:
        FusemixError: for broken YAML, a key that stands twice or does not exist, a missing key, or a value of the
            wrong type; names the file, the key and the nearest valid one.
    """
    check_keys(path)
    check_flags(parser, arguments)
    try:
        # The file comes first: what stands before it would be lost.
        values = parser.parse_args([f"--recipe={path}", *arguments])
        built = parser.instantiate(values)
    except (ArgumentError, TypeError, ValueError) as error:
        message = " ".join(str(error).replace("Parser key", "key").split())
        raise FusemixError(f"{path}, or an option that changes it: {message}") from error
    return Recipe(**{f.name: built[f.name] for f in fields(Recipe)}), built


def check_flags(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Refuse an option that a parser does not have.

    Raises:
        FusemixError: naming the option and the nearest valid one.
    """
    flags = {option for action in parser._actions for option in action.option_strings} - {"--recipe"}
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag not in flags and not flag.startswith("--encoders."):
            raise FusemixError(f"unknown option {flag}: {nearest(flag, flags)}")


def check_keys(path: Path) -> None:
    """Refuse a recipe file that is not YAML, or has a key twice, one that does not exist, or a section without keys.

    Raises:
        FusemixError: naming file, key and the nearest valid key.
    """
    try:
        data = yaml.load(path.read_text(), _UniqueKeys)  # noqa: S506  # derived from SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FusemixError(f"{path} is not a readable recipe: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise FusemixError(f"{path} is not a recipe: it must hold keys such as dataset and encoders")
    valid = set(_keys(Recipe, ""))
    sections = {key.rpartition(".")[0] for key in valid}
    for key, value in _given(data, ""):
        if key not in valid and not key.startswith("encoders."):
            raise FusemixError(f"{path} has the unknown key {key!r}: {nearest(key, valid)}")
        if key in sections and not isinstance(value, Mapping):
            raise FusemixError(f"{path}: {key!r} must hold keys of its own, not {value!r}")


def _keys(kind: type, prefix: str) -> Iterator[str]:
    for name, of in get_type_hints(kind).items():
        yield prefix + name
        if is_dataclass(of) and isinstance(of, type):
            yield from _keys(of, f"{prefix}{name}.")


def _given(data: Mapping[object, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in data.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from _given(value, f"{prefix}{key}.")


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, not a silent replacement."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)
