"""A recipe: dataset, encoders, and the settings of every stage, as YAML and command line fill them.

Its own keys and those of the stages are fields of dataclasses and are checked here, by name.  A dataset and an
encoder have free settings besides: their reader or factory declares them, so the registries check them, and what a
recipe holds of them stays as it was written.
"""

from __future__ import annotations

import json
import re
from argparse import SUPPRESS, ArgumentError
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from fusemix.adapters.settings import AdapterSettings
from fusemix.benchmarks.settings import BenchmarkSettings
from fusemix.errors import FusemixError, nearest
from fusemix.extract.settings import DatasetChoice, EncoderChoice, ExtractSettings
from fusemix.files import replacing
from fusemix.keys import check_keys, kind_of
from fusemix.options import check_flags, dataset_mapping, merge_settings, split_settings, yaml_values
from fusemix.training.settings import FuseSettings

set_parsing_settings(docstring_parse_attribute_docstrings=True)

Thing = TypeVar("Thing")
_THEIR_WORDS = re.compile(r"Problem with given class_path '[^']*':\s*")


@dataclass(frozen=True)
class Recipe:
    """All that a run needs to be repeated."""

    name: str
    """Names the run unless --run does."""
    dataset: str | dict[str, Any] | tuple[str | dict[str, Any], ...]
    """A dataset's name, a manifest file, or its reader with what it reads: {reader: coco, path: /data/coco}.  Paths
    are relative to the current folder.  Or a list of these, which the same encoders encode."""
    encoders: Mapping[str, str | dict[str, Any] | list[str | dict[str, Any]]]
    """Modality -> encoder: its name, its name with settings, or a list of either, whose latents are concatenated:
    {image: dinov2-base, text: {name: bge-large, pooling: cls}, audio: [htsat, whisper-base]}."""
    extract: ExtractSettings = field(default_factory=ExtractSettings)
    """How raw items become latents."""
    fuse: FuseSettings = field(default_factory=FuseSettings)
    """How adapters are trained."""
    benchmark: BenchmarkSettings = field(default_factory=BenchmarkSettings)
    """What is measured afterwards."""

    def __post_init__(self) -> None:
        if not self.encoders:
            raise FusemixError("encoders: a recipe names at least one, for example {image: dinov2-base}")
        _check_once("dataset", self.dataset_choices, "give each dataset once, with a name of its own")
        for modality, choices in self.encoder_choices.items():
            _check_once(f"encoders.{modality}", choices, "name each encoder to concatenate once")
        names = [choice.name for choice in self.dataset_choices if choice.name]
        if twice := _repeated(names):
            raise FusemixError(f"dataset: two are called {twice!r}: give each a name of its own")
        if self.benchmark.split in self.fuse.learned_splits:
            raise FusemixError(
                f"benchmark.split is {self.benchmark.split}: with fuse.refit the adapters learn from it; measure"
                " another, or set fuse.refit to false"
            )
        # A slip in an edge must not show only after hours of extraction.
        self.fuse.edges_between(self.encoders)
        for modality in self.fuse.adapters:
            if modality not in self.encoders:
                raise FusemixError(
                    f"fuse.adapters.{modality}: no encoder of {modality!r}: {nearest(modality, self.encoders)}"
                )

    @property
    def dataset_choices(self) -> list[DatasetChoice]:
        """The reader, path, name and settings of each dataset."""
        return _datasets(self.dataset)

    @property
    def encoder_choices(self) -> dict[str, list[EncoderChoice]]:
        """Modality -> its encoders with their settings; of several, the latents are concatenated."""
        return {modality: _choices(given, f"encoders.{modality}") for modality, given in self.encoders.items()}

    @property
    def dataset_names(self) -> list[str]:
        """What names the folders of the datasets' latents; known once a run has saved the recipe."""
        return [choice.name or choice.reader for choice in self.dataset_choices]

    def named(self, names: Sequence[str]) -> Recipe:
        """Return the recipe with the names of its datasets spelled out, so that latents are found without the data.

        Args:
            names: what the datasets are called, in the order of the recipe.

        Raises:
            FusemixError: where two are called the same, or `fuse.dataset_weights` names another or sums to 0.
        """
        if twice := _repeated(names):
            raise FusemixError(
                f"dataset: two are called {twice!r}: give each a name of its own, as {{reader: ..., name: mine}}"
            )
        for weighed in self.fuse.dataset_weights:
            if weighed not in names:
                raise FusemixError(f"fuse.dataset_weights.{weighed}: no such dataset: {nearest(weighed, names)}")
        if not any(self.fuse.dataset_weights.get(name, 1) for name in names):
            raise FusemixError("fuse.dataset_weights sum to 0: nothing would be left to train on")
        given = self.dataset if isinstance(self.dataset, tuple) else (self.dataset,)
        spelled = tuple(
            one if name == known else dataset_mapping(replace(choice, name=name))
            for one, choice, known, name in zip(given, self.dataset_choices, self.dataset_names, names, strict=True)
        )
        return replace(self, dataset=spelled if isinstance(self.dataset, tuple) else spelled[0])

    def save(self, path: Path) -> None:
        """Write the recipe, every default spelled out."""
        with replacing(path) as temporary:
            temporary.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(self))), sort_keys=False))


def _choices(given: object, key: str) -> list[EncoderChoice]:
    """Read what a recipe holds for a modality: an encoder, or a list of those whose latents are concatenated.

    Raises:
        FusemixError: naming the key, where it is neither.
    """
    try:
        return [EncoderChoice.of(one) for one in (given if isinstance(given, list) else [given])]
    except FusemixError as error:
        raise FusemixError(f"{key}: {error}") from error


def _datasets(given: object) -> list[DatasetChoice]:
    """Read what a recipe holds as its dataset: one, or a list."""
    return [DatasetChoice.of(one) for one in (given if isinstance(given, list | tuple) else [given])]


def _check_once(key: str, choices: Sequence[DatasetChoice | EncoderChoice], remedy: str) -> None:
    """Refuse an empty list, and one in which something stands twice."""
    twice = _repeated(choices)
    if twice or not choices:
        name = twice.reader if isinstance(twice, DatasetChoice) else twice and twice.name
        raise FusemixError(f"{key}: {f'{name!r} stands twice' if twice else 'an empty list'}; {remedy}")


def _repeated(things: Sequence[Thing]) -> Thing | None:
    """Return the first thing that stands in a sequence twice."""
    return next((thing for index, thing in enumerate(things) if thing in things[:index]), None)


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
    """Add a flag for each of a recipe's fields, and a hidden one for its file."""
    parser.add_argument("--recipe", action="config", help=SUPPRESS)
    parser.add_class_arguments(Recipe, None)
    for action in parser._actions:
        # The keys of what they speak of stand in the help already, or beside it.
        if action.dest.endswith(".help") or action.option_strings == ["--fuse.adapter"]:
            action.help = SUPPRESS


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
    check_file(path)
    check_flags(parser, arguments)
    plain, free = split_settings(arguments)
    for key, value in yaml_values(arguments):
        try:
            check_keys(value, kind_of(Recipe, key), key)
        except FusemixError as error:
            raise FusemixError(f"option --{key}: {error}") from error
    try:
        # The file comes first: what stands before it would be lost.
        values = parser.parse_args([f"--recipe={path}", *plain])
        merge_settings(values, free)
        parser.validate(values)
        _check_adapters(values.fuse)
        built = parser.instantiate(values)
    except (ArgumentError, TypeError, ValueError) as error:
        message = " ".join(_THEIR_WORDS.sub("", str(error).replace("Parser key", "key")).split())
        raise FusemixError(f"{path}, or an option that changes it: {message}") from error
    return Recipe(**{f.name: built[f.name] for f in fields(Recipe)}), built


def _check_adapters(fuse: Namespace) -> None:
    """Refuse settings that an adapter cannot have, naming the adapter, which does not know whose it is."""
    for key, given in {
        "adapter": fuse.adapter,
        **{f"adapters.{name}": of for name, of in fuse.adapters.items()},
    }.items():
        try:
            AdapterSettings(**dict(given))
        except FusemixError as error:
            raise FusemixError(f"fuse.{key}: {error}") from error


def check_file(path: Path) -> None:
    """Refuse a recipe file that is not YAML, has a key twice or one that does not exist, or a wrong kind of value.

    Raises:
        FusemixError: naming file, key and the nearest valid key.
    """
    try:
        data = yaml.load(path.read_text(), _UniqueKeys)  # noqa: S506  # derived from SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FusemixError(f"{path} is not a readable recipe: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise FusemixError(f"{path} is not a recipe: it must hold keys such as dataset and encoders")
    try:
        if "dataset" in data:
            _datasets(data["dataset"])
        if not isinstance(encoders := data.get("encoders", {}), Mapping):
            raise FusemixError(f"encoders: name one for each modality, as {{image: dinov2-base}}, not {encoders!r}")
        for modality, given in encoders.items():
            _choices(given, f"encoders.{modality}")
        check_keys(data, Recipe)
    except FusemixError as error:
        raise FusemixError(f"{path}: {error}") from error


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, not a silent replacement."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)
