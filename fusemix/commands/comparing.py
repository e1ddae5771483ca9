"""Whether one run is better than another: `fusemix compare`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from fusemix.commands.exits import Exit
from fusemix.commands.measuring import Destination, joint_space_digest, measure_run, result_path, run_folder
from fusemix.commands.parsing import add_device, command_parser, parse_options
from fusemix.errors import FusemixError
from fusemix.recipe import load_recipe

if TYPE_CHECKING:
    from fusemix.benchmarks.results import StoredRun
    from fusemix.benchmarks.run_comparison import Seeds


def compare(arguments: Sequence[str]) -> Exit:
    """Tell whether runs are better than the first of them, by paired tests on the same queries."""
    parser = command_parser("compare", "RUN_A RUN_B ... [--option VALUE ...]", compare.__doc__)
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of a run, or the JSON of its result; several seeds of one model are joined by commas, and"
        " averaged for each query",
    )
    parser.add_argument("--dataset", default="", help="which, where the runs have several")
    parser.add_argument("--changed", type=int, default=5, help="how many queries to show of those that changed most")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown, to paste")
    parser.add_argument("--out", default="", help="a JSON of the comparison; results/compare/A-B.json if left out")
    parser.add_argument("--root", default=".", help="folder of latents/ and results/")
    add_device(parser)
    options = parse_options(parser, arguments)
    if len(options.runs) < 2:
        raise FusemixError("fusemix compare takes two runs or more: fusemix compare runs/a runs/b")
    from fusemix.benchmarks.context import machine
    from fusemix.benchmarks.results import write_json
    from fusemix.benchmarks.run_comparison import compare_runs
    from fusemix.benchmarks.run_comparison_report import run_comparison_report

    seeds = [_seeds(given, options) for given in options.runs]
    comparison = compare_runs(seeds)
    names = "-".join("+".join(Path(run.name).stem for run in of.runs) for of in seeds)
    path = Path(options.out or Path(options.root) / "results" / "compare" / f"{names}.json")
    write_json(path, "compare", comparison.to_dict(), {"machine": machine()})
    report = run_comparison_report(comparison, options.changed)
    print(f"{report.markdown() if options.markdown else report.text()}\n\nresult: {path}")
    return Exit.COMPLETE


def _seeds(given: str, options: Namespace) -> Seeds:
    from fusemix.benchmarks.run_comparison import Seeds

    parts = [given] if Path(given).exists() else given.split(",")
    # Two runs of different roots may have one name; what the user calls them is clear.
    runs = tuple(replace(_stored(Path(part), options), name=part) for part in parts)
    return Seeds(", ".join(parts), runs)


def _stored(given: Path, options: Namespace) -> StoredRun:
    """Return the result of a run: what is stored of it, or else what is measured now.

    Raises:
        FusemixError: where there is neither a result nor a run.
    """
    from fusemix.benchmarks.results import read_retrieval

    if given.suffix == ".json":
        return read_retrieval(given)
    folder = run_folder(str(given))
    if folder is None:
        raise FusemixError(f"no run at {given}: name the folder of one, or the JSON of its result")
    recipe = load_recipe(folder / "recipe.yaml")
    names = recipe.dataset_names
    if options.dataset not in ("", *names) or (not options.dataset and len(names) > 1):
        raise FusemixError(f"{folder} has results on {', '.join(names)}: choose one with --dataset")
    destination = Destination(Path(options.root), folder, folder.resolve().name)
    path = result_path(destination, options.dataset or names[0], len(names))
    if not _is_of(path, folder):
        print(f"measuring {folder}", file=sys.stderr, flush=True)
        with redirect_stdout(sys.stderr):
            measure_run(folder, recipe, Path(options.root), options.device)
    return read_retrieval(path)


def _is_of(path: Path, folder: Path) -> bool:
    """Return whether a result is there and of the adapters as they are now, not of an earlier training."""
    from fusemix.benchmarks.results import read_json

    if not path.is_file():
        return False
    try:
        return bool(read_json(path).get("joint_space") == joint_space_digest(folder))
    except FusemixError:
        return False
