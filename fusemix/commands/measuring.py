"""What a joint space retrieves, measured, printed and stored: after training, and of a finished run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

from fusemix.errors import FusemixError
from fusemix.recipe import Recipe, load_recipe, packaged_recipes

if TYPE_CHECKING:
    from fusemix.extract.dataset import Dataset
    from fusemix.joint_space import JointSpace
    from fusemix.latents.paired import PairedLatents


@dataclass(frozen=True)
class Destination:
    """Where results go, and in what form they are printed."""

    root: Path
    run: Path
    """Folder of the run."""
    name: str
    """Of the result; the run's unless another split or protocol was measured than the recipe's."""
    markdown: bool = False
    per_query: Path | None = None
    """File for a line about each query."""


def run_folder(given: str) -> Path | None:
    """Return the folder of a run where that is what was given, and not a recipe.

    Raises:
        FusemixError: where a folder holds no finished run.
    """
    folder = Path(given)
    if not folder.is_dir():
        return None
    if not (folder / "recipe.yaml").is_file():
        if given in packaged_recipes():
            return None
        raise FusemixError(f"no finished run in {folder}; train one with: fusemix fuse RECIPE")
    return folder


def measure_run(
    folder: Path, recipe: Recipe, root: Path, device: str, *, markdown: bool = False, per_query: Path | None = None
) -> list[Path]:
    """Measure a finished run on the datasets of a recipe, and return the files of the results.

    Args:
        folder: the run's.
        recipe: its own, but for the datasets, whose latents are there, and the settings of the benchmark.
        root: folder of `latents/` and `results/`.
        device: where its adapters run.
        markdown: print tables as Markdown.
        per_query: file for a line about each query.

    Raises:
        FusemixError: where the recipe differs in more than these, there is nothing to measure, or latents are of
            other encoders than the run's.
    """
    from fusemix.device import resolve_device
    from fusemix.joint_space import JointSpace

    saved = load_recipe(folder / "recipe.yaml")
    fixed = ("name", "encoders", "extract", "fuse")
    if changed := [key for key in fixed if getattr(saved, key) != getattr(recipe, key)]:
        raise FusemixError(
            f"{folder} is measured as it was trained: {', '.join(changed)} cannot be changed, only dataset and"
            " benchmark"
        )
    space = JointSpace.load(folder / "joint_space").to(resolve_device(device))
    latents = load_latents(recipe, [(name, recipe.encoders) for name in recipe.dataset_names], root, device)
    settings = recipe.benchmark
    parts = [folder.resolve().name]
    parts += recipe.dataset_names if recipe.dataset_names != saved.dataset_names else []
    parts += [settings.split] if settings.split != saved.benchmark.split else []
    parts += [settings.protocol] if settings.protocol != saved.benchmark.protocol else []
    destination = Destination(root, folder, "-".join(parts), markdown, per_query)
    return measure(space, measurable(latents, recipe), recipe, destination)


def load_latents(
    recipe: Recipe, datasets: Sequence[tuple[str, Collection[str]]], root: Path, device: str
) -> list[PairedLatents]:
    """Load the latents of each dataset; what is too large for the memory is left in its files.

    Args:
        recipe: names the encoders.
        datasets: name and modalities of each.
        root: folder of `latents/`.
        device: where they are used.
    """
    from fusemix.device import resolve_device
    from fusemix.latents.file import LatentsFile
    from fusemix.latents.paired import PairedLatents
    from fusemix.search import latents_files
    from fusemix.training.residency import wants_mapping

    files = []
    for dataset, modalities in datasets:
        encoders = {name: chosen for name, chosen in recipe.encoder_choices.items() if name in modalities}
        files.append(latents_files(root, dataset, encoders))
    opened = [LatentsFile(path) for of in files for paths in of.values() for path in paths]
    size = sum(file.rows * file.dim * file.dtype.itemsize for file in opened)
    mapped = wants_mapping(size, recipe.fuse.residency, resolve_device(device))
    return [PairedLatents.load(of, mapped=mapped) for of in files]


def check_benchmark(datasets: Sequence[Dataset], recipe: Recipe) -> None:
    """Refuse what `measurable` would, as far as it can be told before hours of extraction.

    Raises:
        FusemixError: where no dataset has the benchmark's split, or its protocol is not for it.
    """
    from fusemix.benchmarks.protocols import choose_protocol

    splits = {split for dataset in datasets for split in dataset.splits.values()}
    if recipe.benchmark.split not in splits:
        raise _no_such_split(recipe, splits)
    for dataset in datasets:
        choose_protocol(dataset.name, recipe.benchmark.split, recipe.benchmark.protocol)


def measurable(latents: Sequence[PairedLatents], recipe: Recipe) -> list[PairedLatents]:
    """Return the datasets that have the benchmark's split, with items of two modalities in it.

    Raises:
        FusemixError: where none has, or the benchmark's protocol is not for them.
    """
    from fusemix.benchmarks.retrieval import measurable_pairs, protocol_of

    split, trained = recipe.benchmark.split, trained_pairs(recipe)
    modalities = {name for pair in trained for name in pair}
    with_split = [one for one in latents if split in one.splits]
    measured = [one for one in with_split if measurable_pairs(one.split(split), modalities, trained)]
    if not measured:
        if not with_split:
            raise _no_such_split(recipe, {str(name) for one in latents for name in one.splits})
        raise FusemixError(
            f"benchmark.split: there is no item of the split {split!r} with two of {', '.join(sorted(modalities))}:"
            " nothing to measure"
        )
    for one in measured:
        protocol_of(one, recipe.benchmark)
    return measured


def _no_such_split(recipe: Recipe, splits: Collection[str]) -> FusemixError:
    return FusemixError(
        f"benchmark.split: there is no item of the split {recipe.benchmark.split!r} at all in"
        f" {', '.join(recipe.dataset_names)}: nothing to measure (splits: {', '.join(sorted(splits))})"
    )


def measure(
    space: JointSpace, latents: Sequence[PairedLatents], recipe: Recipe, destination: Destination
) -> list[Path]:
    """Print the retrieval table of each dataset, and return the files that the results were written to."""
    from fusemix.benchmarks.answers import write_answers
    from fusemix.benchmarks.context import machine
    from fusemix.benchmarks.results import write_retrieval
    from fusemix.benchmarks.retrieval import measure_pairs
    from fusemix.benchmarks.retrieval_report import retrieval_report

    context: Mapping[str, object] = {
        "run": destination.run.resolve().name,
        "joint_space": joint_space_digest(destination.run),
        "learned_from": recipe.fuse.learned_splits,
        "seed": recipe.benchmark.seeds[0],
        "machine": machine(),
    }
    paths, kept = [], []
    for one in latents:
        measured, split = (
            measure_pairs(space, one, trained_pairs(recipe), recipe.benchmark),
            one.split(recipe.benchmark.split),
        )
        paths.append(result_path(destination, one.dataset.name, len(recipe.dataset_names)))
        write_retrieval(paths[-1], measured, split, context)
        report = retrieval_report(measured.result)
        print(f"\n{report.markdown() if destination.markdown else report.text()}")
        kept += [(measured, split)] if destination.per_query else []
    if destination.per_query:
        lines = write_answers(destination.per_query, kept)
        print(f"\nqueries: {destination.per_query}, {lines:,} lines")
    return paths


def result_path(destination: Destination, dataset: str, datasets: int) -> Path:
    """Return where the result on a dataset goes; a run of several has a folder for them."""
    folder = destination.root / "results" / "retrieval"
    return folder / destination.name / f"{dataset}.json" if datasets > 1 else folder / f"{destination.name}.json"


def joint_space_digest(run: Path) -> str:
    """Return the SHA-256 of a run's adapters, by which a stored result is known to be of them."""
    with (run / "joint_space" / "adapters.safetensors").open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def trained_pairs(recipe: Recipe) -> list[tuple[str, str]]:
    """Return the pairs of modalities that the recipe's edges align."""
    return [(edge.a, edge.b) for edge in recipe.fuse.edges_between(recipe.encoders)]


def with_split(recipe: Recipe, split: str) -> Recipe:
    """Return the recipe with another split to measure; with its own where none is given."""
    return replace(recipe, benchmark=replace(recipe.benchmark, split=split)) if split else recipe
