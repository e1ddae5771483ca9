"""What a latents file holds: `fusemix inspect`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from fusemix.commands.exits import Exit
from fusemix.commands.parsing import add_device, command_parser, parse_options
from fusemix.errors import FusemixError
from fusemix.extract.settings import DatasetChoice, EncoderChoice
from fusemix.recipe import load_recipe, recipe_path

if TYPE_CHECKING:
    from fusemix.extract.verification import Reencoding
    from fusemix.latents.file import LatentsFile
    from fusemix.latents.inspection import FaultyRows, Inspection, StoredCheck

NARROWEST = 40
NAMES = 14


def inspect(arguments: Sequence[str]) -> Exit:
    """Show what a latents file holds; a run may be writing it meanwhile.

    With --verify, look at each stored latent, and encode some rows again to compare.
    """
    parser = command_parser("inspect", "FILE [--option VALUE ...]", inspect.__doc__, Exit.FAULTY)
    parser.add_argument("file", help="a latents file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--verify", action="store_true", help="check checksums, finiteness and norms, and encode again"
    )
    parser.add_argument("--encode", type=int, default=16, metavar="K", help="random rows that --verify encodes again")
    parser.add_argument(
        "--recipe",
        metavar="RECIPE",
        help="recipe that names dataset and encoder; not needed where both are packaged and have no settings",
    )
    add_device(parser)
    options = parse_options(parser, arguments)
    if options.encode < 0:
        raise FusemixError(f"--encode is {options.encode}: it must be at least 0")
    from fusemix.latents.file import LatentsFile
    from fusemix.latents.inspection import check_stored, inspect_file

    found = inspect_file(options.file)
    stored, again = None, None
    if options.verify:
        file = LatentsFile(options.file)
        again = _encode_again(file, options) if options.encode > 0 else None
        stored = check_stored(file)
    if options.json:
        record = asdict(found)
        if stored is not None:
            record["verification"] = {"stored": asdict(stored), "encoded_again": again and asdict(again)}
        print(json.dumps(record, indent=2))
    else:
        width = shutil.get_terminal_size().columns
        print(inspection_table(found, width))
        if stored is not None:
            print(verification_table(stored, again, width))
    faulty = stored is not None and not (stored.ok and (again is None or again.ok))
    return Exit.FAULTY if faulty else Exit.COMPLETE


def inspection_table(found: Inspection, width: int) -> str:
    """Return what a file holds as a table for people.

    Args:
        found: what it holds.
        width: columns of the terminal; values that are too long go on in the next line.
    """
    encoder, dataset = found.provenance["encoder"], found.provenance["dataset"]
    norms, twins, by = found.norms, found.duplicates, found.written_by
    lines = {
        "rows": f"{found.rows:,}: {found.done:,} done, {found.failed:,} failed, {found.to_do:,} to do",
        "writing": f"process {by.process} on {by.host} since {by.started}" if by else "",
        "shard": found.shard,
        "splits": ", ".join(f"{name} {rows:,}" for name, rows in found.splits.items()),
        "latents": f"{found.dim} x {found.dtype}, {_size(found.size)}",
        "norms": f"min {norms.min:.4g}, median {norms.median:.4g}, max {norms.max:.4g}" if norms else "",
        "duplicates": f"{twins.groups:,} contents in {twins.rows:,} rows, {twins.across_splits:,} across splits",
        "dataset": " ".join(filter(None, [dataset["name"], dataset["fingerprint"], dataset["manifest"]])),
        "encoder": f"{encoder['name']}, {encoder['modality']}, in {encoder['dtype']}",
        **{key: _plain(encoder[key]) for key in encoder if key not in ("name", "modality", "dim", "dtype")},
        "libraries": ", ".join(f"{name} {version}" for name, version in found.provenance["libraries"].items()),
        "attribution": dataset["attribution"],
    }
    return "\n".join([found.file, *_rows(lines, width)])


def verification_table(stored: StoredCheck, again: Reencoding | None, width: int) -> str:
    """Return what --verify found as a table for people."""
    lines = {
        "checked": f"{stored.rows:,} rows that are done",
        "checksums": _faults(stored.damaged, "damaged"),
        "finite": _faults(stored.not_finite, "with NaN or infinity"),
        "zero": _faults(stored.zero, "of norm 0"),
    }
    if again is not None:
        lines["again"] = f"{again.rows:,} rows encoded again"
        if again.smallest_cosine is not None:
            lines["again"] += (
                f": largest difference {again.largest_difference:.3g}, smallest cosine {again.smallest_cosine:.6f}"
                f" (row {again.furthest_row}; {again.cosine_needed} is needed)"
            )
        lines["changed"] = "; ".join(f"row {one.row}, {one.source!r}: {one.reason}" for one in again.changed)
    lines["result"] = "all well" if stored.ok and (again is None or again.ok) else "FAULTY"
    return "\n".join(_rows(lines, width))


def _encode_again(file: LatentsFile, options: Namespace) -> Reencoding:
    from fusemix.extract.datasets import load_dataset
    from fusemix.extract.verification import encode_again

    try:
        dataset, encoder = _origin(file, options.recipe)
        return encode_again(file, load_dataset(dataset), encoder, options.encode, device=options.device)
    except FusemixError as error:
        remedy = "" if options.recipe else "name dataset and encoder with --recipe RECIPE, or "
        raise FusemixError(f"rows cannot be encoded again: {error}; {remedy}leave it out with --encode 0") from error


def _origin(file: LatentsFile, recipe: str | None) -> tuple[DatasetChoice, EncoderChoice]:
    """Return the dataset and the encoder of a file: those of a recipe, else those of that name without settings."""
    if recipe is None:
        return DatasetChoice(file.provenance.dataset.name), EncoderChoice(file.spec.name)
    from fusemix.extract.registry import encoder_label

    named = load_recipe(recipe_path(recipe))
    choices = named.encoder_choices.get(file.spec.modality, [])
    label = file.path.stem.partition(".shard-")[0]
    fitting = choices if len(choices) == 1 else [choice for choice in choices if encoder_label(choice) == label]
    if len(fitting) != 1:
        raise FusemixError(f"the recipe {recipe} has no {file.spec.modality} encoder {label!r}")
    datasets, held = named.dataset_choices, file.provenance.dataset.name
    called = datasets if len(datasets) == 1 else [choice for choice in datasets if held in _names(choice)]
    if len(called) != 1:
        raise FusemixError(f"the recipe {recipe} has no dataset, or several, that may be {held!r}: name them in it")
    return called[0], fitting[0]


def _names(choice: DatasetChoice) -> tuple[str, ...]:
    """Return what a dataset is called: what the recipe says, or else what its reader may call it."""
    return (choice.name,) if choice.name else (choice.reader, Path(choice.path or "").stem)


def _plain(value: object) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def _faults(rows: FaultyRows, what: str) -> str:
    if not rows.count:
        return "all well"
    more = ", ..." if rows.count > len(rows.first) else ""
    return f"{rows.count:,} rows {what}: {', '.join(map(str, rows.first))}{more}"


def _rows(lines: Mapping[str, str], width: int) -> list[str]:
    """Return the lines of a table; what is empty is left out."""
    return [
        f"  {name.replace('_', ' ') if number == 0 else '':<{NAMES}}{line}"
        for name, value in lines.items()
        for number, line in enumerate(wrap(value, max(width, NARROWEST) - NAMES - 2))
    ]
