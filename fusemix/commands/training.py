"""Latents -> a joint space, and what it is worth: `fusemix fuse` and `fusemix benchmark`."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from fusemix.commands.exits import Exit
from fusemix.commands.extraction import extract_missing, load_datasets
from fusemix.commands.measuring import (
    Destination,
    check_benchmark,
    load_latents,
    measurable,
    measure,
    measure_run,
    run_folder,
    with_split,
)
from fusemix.commands.parsing import add_device, chosen_pair, command_parser, parse_recipe_options
from fusemix.errors import FusemixError
from fusemix.recipe import Recipe

if TYPE_CHECKING:
    from fusemix.extract.dataset import Dataset


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

    root = Path(options.root)
    run = root / "runs" / (options.run or recipe.name)
    recipe, datasets = load_datasets(recipe)
    check_benchmark(datasets, recipe)
    extract_missing(recipe, datasets, options)
    latents = load_latents(recipe, _named(datasets), root, options.device)
    # That the split has nothing to measure must not show only after the training.
    measured = measurable(latents, recipe)
    if options.restart:
        _remove_run(run)
    space = train(latents, recipe.fuse, run=run, device=options.device, accept_changes=options.accept_changes)
    recipe.save(run / "recipe.yaml")
    results = measure(space, measured, recipe, Destination(root, run, run.name))
    print(f"\nrun: {run}", *(f"result: {path}" for path in results), sep="\n")
    if "text" in space.modalities:
        place = "" if options.root == "." else f" --root {shlex.quote(options.root)}"
        print(f"try: fusemix search 'a smiling cat' --run {shlex.quote(str(run))}{place}")
    for dataset in datasets:
        if dataset.attribution:
            print(dataset.attribution)
    return Exit.COMPLETE


def benchmark(arguments: Sequence[str]) -> Exit:
    """Measure a finished run; or, of a recipe, train and compare FuseMix, FuseMix without mixup, and ridge."""
    parser = _parser("benchmark", benchmark.__doc__, "RUN|RECIPE [--option VALUE ...]")
    parser.add_argument("--pair", nargs=2, metavar=("A", "B"), help="modalities to compare on, where there are more")
    parser.add_argument("--split", default="", help="split to measure; benchmark.split if left out")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown, to paste")
    parser.add_argument("--per-query", default="", metavar="FILE", help="of a run: a JSON line about each query")
    folder = run_folder(arguments[0]) if arguments else None
    named = [str(folder / "recipe.yaml"), *arguments[1:]] if folder else arguments
    recipe, options = parse_recipe_options(parser, named, ["extract", "fuse", "benchmark"])
    recipe = with_split(recipe, options.split)
    if folder is None:
        return _compare(recipe, options)
    if options.run or options.restart or options.pair:
        raise FusemixError(f"--run, --restart and --pair are for recipes: the run in {folder} is measured as it is")
    per_query = Path(options.per_query) if options.per_query else None
    paths = measure_run(
        folder, recipe, Path(options.root), options.device, markdown=options.markdown, per_query=per_query
    )
    print("", *(f"result: {path}" for path in paths), sep="\n")
    return Exit.COMPLETE


def _compare(recipe: Recipe, options: Namespace) -> Exit:
    if options.per_query:
        raise FusemixError("--per-query is for a finished run: fusemix benchmark runs/NAME --per-query FILE")
    a, b = chosen_pair(recipe, options.pair)
    if len(recipe.dataset_choices) > 1:
        raise FusemixError(
            "dataset: fusemix benchmark compares on one dataset, and the recipe has"
            f" {len(recipe.dataset_choices)}: give one with --dataset"
        )
    from fusemix.benchmarks.comparison import compare
    from fusemix.benchmarks.context import machine
    from fusemix.benchmarks.results import write_json
    from fusemix.benchmarks.retrieval_report import comparison_report

    recipe, datasets = load_datasets(recipe)
    check_benchmark(datasets, recipe)
    extract_missing(recipe, datasets, options)
    root = Path(options.root)
    runs = root / "runs" / f"{options.run or recipe.name}-comparison"
    if options.restart:
        for folder in runs.glob("*-seed*"):
            _remove_run(folder)
    [latents] = load_latents(recipe, _named(datasets), root, options.device)
    result = compare(latents, a, b, recipe.fuse, recipe.benchmark, runs=runs, device=options.device)
    path = root / "results" / "comparison" / f"{options.run or recipe.name}.json"
    write_json(path, "comparison", result.to_dict(), {"recipe": recipe.name, "machine": machine()})
    report = comparison_report(result)
    print(f"\n{report.markdown() if options.markdown else report.text()}\n\nresult: {path}")
    return Exit.COMPLETE


def _named(datasets: Sequence[Dataset]) -> list[tuple[str, Collection[str]]]:
    return [(dataset.name, dataset.modalities) for dataset in datasets]


def _parser(name: str, description: str | None, usage: str = "RECIPE [--option VALUE ...]") -> ArgumentParser:
    parser = command_parser(name, usage, description, Exit.TOO_MANY_FAILURES)
    parser.add_argument("--root", default=".", help="folder of latents/, runs/ and results/")
    add_device(parser)
    parser.add_argument("--run", default="", help="name of the run; the recipe's name if left out")
    parser.add_argument("--restart", action="store_true", help="throw a run of that name away and start anew")
    return parser


def _remove_run(run: Path) -> None:
    for name in ("training_state.pt", "refit/training_state.pt", "metrics.jsonl", "recipe.yaml"):
        (run / name).unlink(missing_ok=True)
