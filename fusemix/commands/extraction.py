"""Raw items -> latents files: `fusemix extract` and `fusemix merge`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from fusemix.commands.arrays import FROM_ARRAYS, extract_from_arrays
from fusemix.commands.exits import Exit
from fusemix.commands.parsing import add_device, command_parser, parse_options, parse_recipe_options
from fusemix.errors import FusemixError, nearest
from fusemix.extract.catalogue import CATALOGUE
from fusemix.extract.settings import EncoderChoice
from fusemix.recipe import Recipe

if TYPE_CHECKING:
    from fusemix.extract.dataset import Dataset
    from fusemix.extract.extraction import ExtractionReport

USAGE = f"""RECIPE [--option VALUE ...]
       fusemix extract {FROM_ARRAYS} LATENTS --items IDS --spec SPEC.yaml --out FILE"""


def extract(arguments: Sequence[str]) -> Exit:
    """Encode what is missing of the recipe's datasets, once per encoder."""
    if any(argument.partition("=")[0] == FROM_ARRAYS for argument in arguments):
        return extract_from_arrays(arguments)
    parser = command_parser("extract", USAGE, extract.__doc__, Exit.WITH_FAILURES, Exit.TOO_MANY_FAILURES)
    parser.add_argument("--root", default=".", help="folder of latents/")
    add_device(parser)
    parser.add_argument("--retry-failed", action="store_true", help="try rows again that failed before")
    parser.add_argument(
        "--max-failures", type=int, metavar="N", help="stop once more rows have failed; as --extract.max_failures"
    )
    parser.add_argument(
        "--shard", metavar="I/N", help="only the I-th of N parts, into a file of its own; fusemix merge joins them"
    )
    recipe, options = parse_recipe_options(parser, arguments, ["extract"])
    if options.max_failures is not None:
        recipe = replace(recipe, extract=replace(recipe.extract, max_failures=options.max_failures))
    shard = None if options.shard is None else _shard(options.shard)
    recipe, datasets = load_datasets(recipe)
    reports = extract_missing(recipe, datasets, options, retry_failed=options.retry_failed, shard=shard)
    return Exit.WITH_FAILURES if any(report.failed for report in reports) else Exit.COMPLETE


def load_datasets(recipe: Recipe) -> tuple[Recipe, list[Dataset]]:
    """List the items of the recipe's datasets and say what they are; return the recipe with their names spelled out.

    Raises:
        FusemixError: where two datasets are called the same, none has a modality that the recipe encodes, or the
            recipe weighs a dataset that is none of them.
    """
    from fusemix.extract.datasets import load_dataset

    datasets = []
    for choice in recipe.dataset_choices:
        dataset = load_dataset(choice)
        datasets.append(dataset)
        print(dataset.summary(), flush=True)
        for note in dataset.notes:
            _note(note)
    recipe = recipe.named([dataset.name for dataset in datasets])
    for modality in recipe.encoders:
        lacking = [dataset for dataset in datasets if modality not in dataset.modalities]
        if len(lacking) == len(datasets):
            known = {name for dataset in datasets for name in dataset.modalities}
            names = ", ".join(repr(dataset.name) for dataset in datasets)
            of = f"dataset {names} has no" if len(datasets) == 1 else f"none of the datasets {names} has"
            raise FusemixError(f"{of} {modality!r}: {nearest(modality, known)}")
        for dataset in lacking:
            _note(f"{dataset.name} has no {modality}: its items go without")
    return recipe, datasets


def extract_missing(
    recipe: Recipe,
    datasets: Sequence[Dataset],
    options: Namespace,
    *,
    retry_failed: bool = False,
    shard: tuple[int, int] | None = None,
) -> list[ExtractionReport]:
    """Encode what is missing of the recipe's datasets and say what was done.

    Args:
        recipe: encoders, settings.
        datasets: the recipe's; a modality that one of them lacks is skipped.
        options: root and device.
        retry_failed: also try rows again that failed before.
        shard: (i, n) for the i-th of n parts only.
    """
    from fusemix.extract.extraction import extract as run_encoder
    from fusemix.extract.extraction import latents_path
    from fusemix.extract.registry import encoder_label

    chosen = [
        (dataset, modality, choice)
        for dataset in datasets
        for modality, choices in recipe.encoder_choices.items()
        if modality in dataset.modalities
        for choice in choices
    ]
    # A slip in the last name must not show only after the first encoder's hours.
    for dataset, modality, choice in chosen:
        path = latents_path(options.root, dataset.name, modality, encoder_label(choice))
        if shard or not path.exists():
            _check_packages(choice)
    reports, leaks = [], dict[tuple[str, str], int]()
    for dataset, modality, choice in chosen:
        report = run_encoder(
            dataset,
            modality,
            choice,
            recipe.extract,
            root=options.root,
            device=options.device,
            retry_failed=retry_failed,
            shard=shard,
        )
        print(report, flush=True)
        leak = _leak(report) if report.encoded else 0
        # All encoders of a modality see the same contents.
        if leak > leaks.get((dataset.name, modality), 0):
            _note(f"{leak} contents of {report.path} lie in more than one split")
            leaks[dataset.name, modality] = leak
        reports.append(report)
    return reports


def _check_packages(choice: EncoderChoice) -> None:
    entry = CATALOGUE.get(choice.name)
    if entry is None:
        return
    for package in entry.packages:
        if package not in sys.modules and find_spec(package) is None:
            raise FusemixError(
                f"encoder {choice.name!r} needs the package {package!r}: pip install 'fusemix[{entry.extra}]'"
            )


def _leak(report: ExtractionReport) -> int:
    """Return how many contents lie in more than one split."""
    from fusemix.latents.file import LatentsFile
    from fusemix.latents.inspection import find_duplicates

    return find_duplicates(LatentsFile(report.path)).across_splits


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)


def merge(arguments: Sequence[str]) -> Exit:
    """Join the shards of an extraction into one latents file, once all are complete."""
    parser = command_parser("merge", "SHARD ... [--out FILE]", merge.__doc__, Exit.WITH_FAILURES)
    parser.add_argument(
        "shards", nargs="+", help="all files of the extraction, or the one file that they are to become"
    )
    parser.add_argument("--out", help="the new file; the shards' name without their number if left out")
    options = parse_options(parser, arguments)
    from fusemix.latents.file import FAILED
    from fusemix.latents.merging import merge as join

    paths = [Path(shard) for shard in options.shards]
    if len(paths) == 1 and not paths[0].exists():
        paths = _shards_of(paths[0])
    merged = join(paths, options.out)
    failed = int((merged.status == FAILED).sum())
    print(f"{merged.path}: {merged.done} of {merged.rows} rows done, {failed} failed, from {len(paths)} shards")
    return Exit.WITH_FAILURES if failed else Exit.COMPLETE


def _shards_of(path: Path) -> list[Path]:
    shards = sorted(path.parent.glob(f"{path.stem}.shard-*-of-*.h5"))
    if not shards:
        raise FusemixError(f"no file at {path}, nor shards of it: {path.stem}.shard-I-of-N.h5")
    return shards


def _shard(given: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", given)
    if match is None:
        raise FusemixError(f"--shard is {given!r}: write I/N, such as 1/8 to 8/8")
    return int(match[1]), int(match[2])
