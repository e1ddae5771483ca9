"""The command line: `fusemix extract|fuse|benchmark RECIPE` and `fusemix search QUERY`.

Each command is a function; jsonargparse gives it the recipe's fields as flags.  torch is imported by the functions,
not here, so that help and mistakes answer at once.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from jsonargparse import ArgumentParser, Namespace

from fusemix.errors import FusemixError, Stopped, nearest
from fusemix.recipe import (
    Recipe,
    add_recipe_arguments,
    check_flags,
    packaged_recipes,
    parse_recipe,
    recipe_path,
)

if TYPE_CHECKING:
    from fusemix.extract.dataset import Dataset
    from fusemix.latents.paired import PairedLatents

BAD_INPUT, STOPPED = 2, 130
_FULL = {errno.ENOSPC, errno.EDQUOT}
_OF_THE_PLACE = _FULL | {
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def extract(recipe: Recipe, options: Namespace) -> None:
    """Encode what is missing of the recipe's dataset, once per encoder."""
    extract_missing(recipe, options, retry_failed=options.retry_failed)


def fuse(recipe: Recipe, options: Namespace) -> None:
    """Extract what is missing, train adapters, and measure retrieval on the test split."""
    from fusemix.benchmarks.context import machine
    from fusemix.benchmarks.report import retrieval_table, write_json
    from fusemix.benchmarks.retrieval import evaluate_retrieval, only_pair
    from fusemix.training.fuse import fuse as train

    a, b = only_pair(list(recipe.encoders))
    run = _run_folder(recipe, options)
    dataset = extract_missing(recipe, options)
    latents = _latents(recipe, options)
    # A slip in the name of the split must not show only after the training.
    latents.split(recipe.benchmark.split)
    if options.restart:
        _remove_run(run)
    space = train(latents, recipe.fuse, run=run, device=options.device)
    recipe.save(run / "recipe.yaml")
    result = evaluate_retrieval(space, latents, a, b, recipe.benchmark)
    path = Path(options.root) / "results" / "retrieval" / f"{run.name}.json"
    write_json(path, "retrieval", result.to_dict(), {"run": run.name, "machine": machine()})
    print(f"\n{retrieval_table(result)}\n\nrun: {run}\nresult: {path}")
    root = "" if options.root == "." else f" --root {shlex.quote(options.root)}"
    print(f"try: fusemix search 'a smiling cat' --run {shlex.quote(str(run))}{root}")
    _attribute(dataset)


def benchmark(recipe: Recipe, options: Namespace) -> None:
    """Train and compare FuseMix, FuseMix without mixup, and ridge on the same splits, over several seeds."""
    from fusemix.benchmarks.comparison import compare
    from fusemix.benchmarks.context import machine
    from fusemix.benchmarks.report import comparison_table, write_json
    from fusemix.benchmarks.retrieval import only_pair

    a, b = only_pair(list(recipe.encoders))
    extract_missing(recipe, options)
    runs = Path(options.root) / "runs" / f"{options.run or recipe.name}-comparison"
    if options.restart:
        for folder in runs.glob("*-seed*"):
            _remove_run(folder)
    latents = _latents(recipe, options)
    result = compare(latents, a, b, recipe.fuse, recipe.benchmark, runs=runs, device=options.device)
    path = Path(options.root) / "results" / "comparison" / f"{options.run or recipe.name}.json"
    write_json(path, "comparison", result.to_dict(), {"recipe": recipe.name, "machine": machine()})
    print(f"\n{comparison_table(result)}\n\nresult: {path}")


def search(options: Namespace) -> None:
    """Find the items of a run's dataset that lie closest to a text or a file."""
    from fusemix.embedder import load
    from fusemix.search import Collection, run_latents

    run = load(options.run, options.device)
    latents = run_latents(options.root, run.recipe.dataset, run.recipe.encoders)
    others = [name for name in run.space.modalities if name != options.modality]
    gallery = options.gallery or others[0]
    source = options.query if options.modality == "text" else Path(options.query)
    hits = Collection(run.space, latents, gallery).search(run.encode(options.modality, [source])[0], options.k)
    print(f"{gallery} rows of {run.recipe.dataset} closest to {options.query!r}, cosine in the joint space:")
    width = max(len(hit.source) for hit in hits)
    for place, hit in enumerate(hits, start=1):
        print(f"{place:3}  {hit.score:6.3f}  {hit.source:<{width}}  {hit.split:<5}  {hit.described_by}".rstrip())
    if latents.dataset.attribution:
        print(latents.dataset.attribution)


def extract_missing(recipe: Recipe, options: Namespace, *, retry_failed: bool = False) -> Dataset:
    """Encode what is missing of the recipe's dataset and say what was done."""
    from fusemix.extract.datasets import load_dataset
    from fusemix.extract.extraction import extract as run_encoder
    from fusemix.extract.registry import encoder_target

    dataset = load_dataset(recipe.dataset)
    # A slip in the last name must not show only after the first encoder's hours.
    for modality, encoder in recipe.encoders.items():
        dataset.rows(modality)
        encoder_target(encoder)
    for modality, encoder in recipe.encoders.items():
        report = run_encoder(
            dataset,
            modality,
            encoder,
            recipe.extract,
            root=options.root,
            device=options.device,
            retry_failed=retry_failed,
        )
        print(report, flush=True)
    return dataset


_RECIPE_COMMANDS: dict[str, Callable[[Recipe, Namespace], None]] = {
    "extract": extract,
    "fuse": fuse,
    "benchmark": benchmark,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; bad input ends in one line on stderr and a non-zero exit code, never in a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _dispatch(arguments)
    except Stopped as stop:
        _fail(str(stop), STOPPED)
    except FusemixError as error:
        _fail(f"error: {error}", BAD_INPUT)
    except KeyboardInterrupt:
        _fail("stopped; run the same command to go on", STOPPED)
    except BrokenPipeError:
        # The reader of our output is gone; point stdout elsewhere so that its final flush is silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in _OF_THE_PLACE:
            raise
        remedy = "free some space" if error.errno in _FULL else "choose another --root or --run"
        _fail(f"error: {error.filename or 'a file'}: {error.strerror}; {remedy}", BAD_INPUT)


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
    elif arguments[0] == "--version":
        from fusemix import __version__

        print(f"fusemix {__version__}")
    elif arguments[0] == "search":
        search(_search_options(arguments[1:]))
    elif arguments[0] in _RECIPE_COMMANDS:
        _run_recipe_command(arguments[0], arguments[1:])
    else:
        raise FusemixError(
            f"unknown command {arguments[0]!r}: {nearest(arguments[0], [*_RECIPE_COMMANDS, 'search'])}"
        )


def _run_recipe_command(command: str, arguments: list[str]) -> None:
    function = _RECIPE_COMMANDS[command]
    parser = ArgumentParser(
        prog=f"fusemix {command}",
        usage=f"fusemix {command} RECIPE [--option VALUE ...]",
        description=function.__doc__,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--root", default=".", help="folder of latents/, runs/ and results/")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    if command == "extract":
        parser.add_argument("--retry_failed", action="store_true", help="try rows again that failed before")
    else:
        parser.add_argument("--run", default="", help="name of the run; the recipe's name if left out")
        parser.add_argument("--restart", action="store_true", help="throw a run of that name away and start anew")
    add_recipe_arguments(parser)
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        return
    if not arguments or arguments[0].startswith("-"):
        raise FusemixError(f"which recipe? fusemix {command} RECIPE, with one of {', '.join(packaged_recipes())}")
    function(*parse_recipe(parser, recipe_path(arguments[0]), arguments[1:]))


def _search_options(arguments: list[str]) -> Namespace:
    parser = ArgumentParser(
        prog="fusemix search", description=search.__doc__, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("query", help="a text, or a file where --modality says so")
    parser.add_argument("--run", required=True, help="folder of the run, for example runs/emoji")
    parser.add_argument("--modality", default="text", help="modality of the query")
    parser.add_argument("--gallery", default="", help="modality to search; the run's other one if left out")
    parser.add_argument("-k", type=int, default=10, help="how many items to show")
    parser.add_argument("--root", default=".", help="folder of latents/")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    check_flags(parser, arguments)
    try:
        return parser.parse_args(arguments)
    except ArgumentError as error:
        message = " ".join(str(error).replace("Parser key", "option").split())
        raise FusemixError(f"{message}; see fusemix search --help") from error


def _overview() -> str:
    lines = ["usage: fusemix COMMAND ...", "", "One joint space from frozen encoders, and what it is worth.", ""]
    for name, function in _RECIPE_COMMANDS.items():
        lines.append(f"  {f'{name} RECIPE':<18} {(function.__doc__ or '').strip()}")
    lines.append(f"  {'search QUERY':<18} {(search.__doc__ or '').strip()}")
    lines.extend(["", f"recipes: {', '.join(packaged_recipes())}, or a YAML file of your own"])
    lines.append("fusemix COMMAND --help lists the options of a command")
    return "\n".join(lines)


def _run_folder(recipe: Recipe, options: Namespace) -> Path:
    return Path(options.root) / "runs" / (options.run or recipe.name)


def _remove_run(run: Path) -> None:
    for name in ("training_state.pt", "metrics.jsonl", "recipe.yaml"):
        (run / name).unlink(missing_ok=True)


def _latents(recipe: Recipe, options: Namespace) -> PairedLatents:
    from fusemix.search import run_latents

    return run_latents(options.root, recipe.dataset, recipe.encoders)


def _attribute(dataset: Dataset) -> None:
    if dataset.attribution:
        print(dataset.attribution)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)
