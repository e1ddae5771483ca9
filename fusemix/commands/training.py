"""Latents -> a joint space, and what it is worth: `fusemix fuse` and `fusemix benchmark`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from fusemix.commands.exits import Exit
from fusemix.commands.extraction import extract_missing, load_datasets
from fusemix.commands.parsing import add_device, command_parser, parse_recipe_options
from fusemix.errors import FusemixError
from fusemix.recipe import Recipe

if TYPE_CHECKING:
    from fusemix.extract.dataset import Dataset
    from fusemix.joint_space import JointSpace
    from fusemix.latents.paired import PairedLatents


def fuse(arguments: Sequence[str]) -> Exit:
    """Extract what is missing, train adapters, and measure retrieval on the test split."""
    parser = _parser("fuse", fuse.__doc__)
    parser.add_argument(
        "--accept-changes", action="store_true", help="go on with a run although settings have changed since"
    )
    recipe, options = parse_recipe_options(parser, arguments, ["extract", "fuse", "benchmark"])
    if len(recipe.encoders) < 2:
        raise FusemixError(f"encoders: fusing takes two modalities or more, not {', '.join(recipe.encoders)}")
    from fusemix.training.fuse import fuse as train

    run = Path(options.root) / "runs" / (options.run or recipe.name)
    recipe, datasets = load_datasets(recipe)
    extract_missing(recipe, datasets, options)
    latents = _latents(recipe, datasets, options)
    # A slip in the name of the split must not show only after the training.
    measured = _measurable(latents, recipe)
    if options.restart:
        _remove_run(run)
    space = train(latents, recipe.fuse, run=run, device=options.device, accept_changes=options.accept_changes)
    recipe.save(run / "recipe.yaml")
    results = _measure(space, measured, recipe, run, Path(options.root))
    print(f"\nrun: {run}", *(f"result: {path}" for path in results), sep="\n")
    if "text" in space.modalities:
        root = "" if options.root == "." else f" --root {shlex.quote(options.root)}"
        print(f"try: fusemix search 'a smiling cat' --run {shlex.quote(str(run))}{root}")
    for dataset in datasets:
        if dataset.attribution:
            print(dataset.attribution)
    return Exit.COMPLETE


def benchmark(arguments: Sequence[str]) -> Exit:
    """Train and compare FuseMix, FuseMix without mixup, and ridge on the same splits, over several seeds."""
    parser = _parser("benchmark", benchmark.__doc__)
    parser.add_argument("--pair", nargs=2, metavar=("A", "B"), help="modalities to compare on, where there are more")
    recipe, options = parse_recipe_options(parser, arguments, ["extract", "fuse", "benchmark"])
    a, b = _pair(recipe, options.pair)
    if len(recipe.dataset_choices) > 1:
        raise FusemixError(
            "dataset: fusemix benchmark compares on one dataset, and the recipe has"
            f" {len(recipe.dataset_choices)}: give one with --dataset"
        )
    from fusemix.benchmarks.comparison import compare
    from fusemix.benchmarks.context import machine
    from fusemix.benchmarks.report import comparison_table, write_json

    recipe, datasets = load_datasets(recipe)
    extract_missing(recipe, datasets, options)
    runs = Path(options.root) / "runs" / f"{options.run or recipe.name}-comparison"
    if options.restart:
        for folder in runs.glob("*-seed*"):
            _remove_run(folder)
    [latents] = _latents(recipe, datasets, options)
    result = compare(latents, a, b, recipe.fuse, recipe.benchmark, runs=runs, device=options.device)
    path = Path(options.root) / "results" / "comparison" / f"{options.run or recipe.name}.json"
    write_json(path, "comparison", result.to_dict(), {"recipe": recipe.name, "machine": machine()})
    print(f"\n{comparison_table(result)}\n\nresult: {path}")
    return Exit.COMPLETE


def _parser(name: str, description: str | None) -> ArgumentParser:
    parser = command_parser(name, "RECIPE [--option VALUE ...]", description, Exit.TOO_MANY_FAILURES)
    parser.add_argument("--root", default=".", help="folder of latents/, runs/ and results/")
    add_device(parser)
    parser.add_argument("--run", default="", help="name of the run; the recipe's name if left out")
    parser.add_argument("--restart", action="store_true", help="throw a run of that name away and start anew")
    return parser


def _pair(recipe: Recipe, given: Sequence[str] | None) -> tuple[str, str]:
    """Return the two modalities to compare on."""
    names = list(recipe.encoders)
    a, b = given if given else names if len(names) == 2 else ("", "")
    if a == b or not {a, b} <= set(names):
        said = f"--pair {a} {b}" if given else "two modalities are compared"
        raise FusemixError(f"{said}: choose two of {', '.join(names)} with --pair A B")
    return a, b


def _latents(recipe: Recipe, datasets: Sequence[Dataset], options: Namespace) -> list[PairedLatents]:
    """Load the latents of each dataset; what is too large for the memory is left in its files."""
    from fusemix.device import resolve_device
    from fusemix.latents.file import LatentsFile
    from fusemix.latents.paired import PairedLatents
    from fusemix.search import latents_files
    from fusemix.training.residency import wants_mapping

    files = []
    for dataset in datasets:
        encoders = {name: chosen for name, chosen in recipe.encoder_choices.items() if name in dataset.modalities}
        files.append(latents_files(options.root, dataset.name, encoders))
    opened = [LatentsFile(path) for of in files for paths in of.values() for path in paths]
    size = sum(file.rows * file.dim * file.dtype.itemsize for file in opened)
    mapped = wants_mapping(size, recipe.fuse.residency, resolve_device(options.device))
    return [PairedLatents.load(of, mapped=mapped) for of in files]


def _measurable(latents: Sequence[PairedLatents], recipe: Recipe) -> list[PairedLatents]:
    """Return the datasets that have the benchmark's split, with items of two modalities in it.

    Raises:
        FusemixError: where none has.
    """
    from fusemix.benchmarks.retrieval import measurable_pairs

    split, trained = recipe.benchmark.split, _trained_pairs(recipe)
    modalities = {name for pair in trained for name in pair}
    with_split = [one for one in latents if split in one.splits]
    measured = [one for one in with_split if measurable_pairs(one.split(split), modalities, trained)]
    if not measured:
        names = ", ".join(recipe.dataset_names)
        lacking = f"with two of {', '.join(sorted(modalities))}" if with_split else f"at all in {names}"
        raise FusemixError(f"benchmark.split: there is no item of the split {split!r} {lacking}: nothing to measure")
    return measured


def _measure(
    space: JointSpace, latents: Sequence[PairedLatents], recipe: Recipe, run: Path, root: Path
) -> list[Path]:
    """Print the retrieval table of each dataset, and return the files that the results were written to."""
    from fusemix.benchmarks.context import machine
    from fusemix.benchmarks.report import retrieval_table, write_json
    from fusemix.benchmarks.retrieval import evaluate_pairs

    several, folder = len(recipe.dataset_names) > 1, root / "results" / "retrieval"
    paths = []
    for one in latents:
        result = evaluate_pairs(space, one, _trained_pairs(recipe), recipe.benchmark)
        paths.append(folder / run.name / f"{one.dataset.name}.json" if several else folder / f"{run.name}.json")
        write_json(paths[-1], "retrieval", result.to_dict(), {"run": run.name, "machine": machine()})
        print(f"\n{retrieval_table(result)}")
    return paths


def _trained_pairs(recipe: Recipe) -> list[tuple[str, str]]:
    return [(edge.a, edge.b) for edge in recipe.fuse.edges_between(recipe.encoders)]


def _remove_run(run: Path) -> None:
    for name in ("training_state.pt", "metrics.jsonl", "recipe.yaml"):
        (run / name).unlink(missing_ok=True)
