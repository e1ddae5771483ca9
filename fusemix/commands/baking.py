"""Many ways to align the same latents, by amount of training data: `fusemix bakeoff`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from fusemix.benchmarks.bakeoff.settings import BUDGET, METHODS, BakeoffSettings
from fusemix.commands.exits import Exit
from fusemix.commands.extraction import extract_missing, load_datasets
from fusemix.commands.measuring import check_benchmark
from fusemix.commands.parsing import add_device, chosen_pair, command_parser, parse_recipe_options
from fusemix.errors import FusemixError
from fusemix.files import replacing

# What a page for others does not repeat: it is of this machine.
OF_THIS_MACHINE = ("--root", "--device")


def bakeoff(arguments: Sequence[str]) -> Exit:
    """Tune and compare ways to align the same latents by amount of training data: a table, a figure and a page."""
    parser = command_parser("bakeoff", "RECIPE [--option VALUE ...]", bakeoff.__doc__, Exit.TOO_MANY_FAILURES)
    parser.add_argument(
        "--fractions", metavar="F,F", default="0.1,0.3,1", help="parts of the training items, with commas"
    )
    parser.add_argument("--seeds", type=int, metavar="N", default=3, help="runs of each method on each fraction")
    parser.add_argument("--methods", metavar="M,M", default=",".join(METHODS), help="which to compare, with commas")
    parser.add_argument(
        "--budget", type=int, metavar="N", default=BUDGET, help="configurations of each that validation sees"
    )
    parser.add_argument(
        "--pair", nargs=2, metavar=("A", "B"), help="modalities to align; A is mapped, or stays locked"
    )
    parser.add_argument("--root", default=".", help="folder of latents/, runs/ and results/")
    add_device(parser)
    recipe, options = parse_recipe_options(parser, arguments, ["extract", "fuse", "benchmark"])
    settings = BakeoffSettings(
        tuple(options.methods.split(",")), _fractions(options.fractions), options.seeds, options.budget
    )
    a, b = chosen_pair(recipe, options.pair)
    if len(recipe.dataset_choices) > 1:
        raise FusemixError(
            "dataset: fusemix bakeoff compares on one dataset, and the recipe has"
            f" {len(recipe.dataset_choices)}: give one with --dataset"
        )
    from fusemix.benchmarks.bakeoff.figure import check_matplotlib, draw
    from fusemix.benchmarks.bakeoff.page import bakeoff_table, markdown
    from fusemix.benchmarks.bakeoff.running import bakeoff as bake
    from fusemix.benchmarks.context import machine
    from fusemix.benchmarks.curves import save
    from fusemix.benchmarks.results import write_json
    from fusemix.search import run_latents

    check_matplotlib()
    recipe, datasets = load_datasets(recipe)
    check_benchmark(datasets, recipe)
    extract_missing(recipe, datasets, options)
    root = Path(options.root)
    latents = run_latents(root, recipe.dataset_names[0], recipe.encoder_choices)
    kept = root / "runs" / f"{recipe.name}-bakeoff"
    result = bake(latents, a, b, recipe.fuse, settings, recipe.benchmark, folder=kept, device=options.device)
    path = root / "results" / "bakeoff" / f"{recipe.name}.json"
    on = machine()
    write_json(path, "bakeoff", result.to_dict(), {"recipe": recipe.name, "machine": on})
    picture, page = path.with_suffix(".png"), path.with_suffix(".md")
    save(draw(result), picture)
    with replacing(page) as temporary:
        temporary.write_text(markdown(result, picture.name, _repeated(arguments), on))
    print(f"\n{bakeoff_table(result)}\n\nresult: {path}\npage: {page}\nfigure: {picture}")
    return Exit.COMPLETE


def _fractions(given: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in given.split(","))
    except ValueError as error:
        raise FusemixError(f"--fractions {given}: it must be numbers with commas, such as 0.1,0.3,1") from error


def _repeated(arguments: Sequence[str]) -> str:
    """Return the command that bakes the same on another machine."""
    kept, skip = [Path(arguments[0]).name], False
    for argument in arguments[1:]:
        name, equals, _ = argument.partition("=")
        if not skip and name not in OF_THIS_MACHINE:
            kept.append(argument)
        skip = not skip and name in OF_THIS_MACHINE and not equals
    return shlex.join(["fusemix", "bakeoff", *kept])
