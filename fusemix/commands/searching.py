"""A joint space in use: `fusemix search`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from fusemix.commands.exits import Exit
from fusemix.commands.parsing import add_device, command_parser, parse_options
from fusemix.errors import FusemixError

if TYPE_CHECKING:
    from fusemix.search import Hit

LEAST_ROOM = 16


def search(arguments: Sequence[str]) -> Exit:
    """Find the items of a run's dataset that lie closest to a text, a picture or a sound."""
    parser = command_parser("search", "QUERY --run RUN [--option VALUE ...]", search.__doc__)
    parser.add_argument("query", help="a text, or the file of a picture or a sound")
    parser.add_argument("--run", required=True, help="folder of the run, for example runs/emoji")
    parser.add_argument(
        "--modality", default="", help="modality of the query; what its file's ending says, else text"
    )
    parser.add_argument(
        "--gallery", default="", help="modality to search; image if left out, or text where the query is a picture"
    )
    parser.add_argument("-k", type=int, default=10, help="how many items to show")
    parser.add_argument("--root", default=".", help="folder of latents/")
    add_device(parser)
    options = parse_options(parser, arguments)
    from fusemix.embedder import load
    from fusemix.search import Collection, closest, run_latents

    run = load(options.run, options.device)
    modalities = list(run.space.modalities)
    modality = options.modality or modality_of(options.query, modalities)
    run.space.adapter(modality)
    if modality != "text" and not _is_file(options.query):
        raise FusemixError(f"no file at {options.query}: a query of the modality {modality!r} is a file")
    gallery = options.gallery or default_gallery(modalities, modality)
    datasets = [run_latents(options.root, name, run.recipe.encoder_choices) for name in run.recipe.dataset_names]
    searched = [latents for latents in datasets if gallery in latents.modalities] or datasets
    collections = [Collection(run.space, latents, gallery) for latents in searched]
    query = run.encode(modality, [options.query if modality == "text" else Path(options.query)])[0]
    hits = closest(collections, query, options.k)
    # What is piped may be read by a program: it is neither wrapped nor shortened.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    asked = repr(options.query) if modality == "text" else f"{modality} {options.query!r}"
    names = ", ".join(latents.dataset.name for latents in searched)
    print(wrapped(f"{gallery} rows of {names} closest to {asked}, cosine in the joint space:", width))
    print(*table(hits, width, with_dataset=len(datasets) > 1), sep="\n")
    for attribution in dict.fromkeys(latents.dataset.attribution for latents in searched):
        if attribution:
            print(wrapped(attribution, width))
    return Exit.COMPLETE


def modality_of(query: str, modalities: Sequence[str]) -> str:
    """Return what a query is: what the ending of a file says of it, and `text` where there is no such file.

    Args:
        query: a text or a path.
        modalities: those of the run.

    Raises:
        FusemixError: where the ending of a file says nothing, or a modality that the run does not have.
    """
    from fusemix.extract.datasets.media import MODALITY_OF

    known = MODALITY_OF.get(Path(query).suffix.lower())
    if not _is_file(query):
        if known in modalities:
            print(f"note: no file at {query}: searching for the words", file=sys.stderr, flush=True)
        return "text"
    if known is None:
        raise FusemixError(
            f"{query} is a file, but its ending does not say of what: give its --modality, or text to search for the"
            " words"
        )
    if known not in modalities:
        raise FusemixError(f"{query} is of the modality {known!r}, and the run has only {', '.join(modalities)}")
    return known


def default_gallery(modalities: Sequence[str], query: str) -> str:
    """Return the modality to search: pictures, else texts, else the first that the query is not of."""
    others = [name for name in modalities if name != query]
    return next((name for name in ("image", "text") if name in others), others[0])


def table(hits: Sequence[Hit], width: int | None, *, with_dataset: bool) -> Iterator[str]:
    """Yield a line for each hit: place, cosine, source, split, and what the item is in words.

    Args:
        hits: best first.
        width: columns of the terminal; sources and words are shortened to fit.  None leaves all whole.
        with_dataset: whether a source is told with its dataset.
    """
    sources = [f"{hit.dataset}: {hit.source}" if with_dataset else hit.source for hit in hits]
    of_source, of_split, of_words = (
        max(map(len, column)) for column in (sources, [hit.split for hit in hits], [hit.described_by for hit in hits])
    )
    if width is not None:
        room = max(width - len("  1   0.000      ") - of_split, LEAST_ROOM)
        of_source = min(of_source, max(room // 2, room - of_words))
        of_words = min(of_words, room - of_source)
    for place, (source, hit) in enumerate(zip(sources, hits, strict=True), start=1):
        shown, words = shortened(source, of_source), shortened(hit.described_by, of_words)
        yield f"{place:3}  {hit.score:6.3f}  {shown:<{of_source}}  {hit.split:<{of_split}}  {words}".rstrip()


def shortened(text: str, length: int) -> str:
    """Return a text of at most `length` signs, without its middle where it is longer."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}…{text[len(text) - end :]}"


def wrapped(text: str, width: int | None) -> str:
    """Return a text in lines of a terminal, or in one."""
    return text if width is None else fill(text, max(width, LEAST_ROOM), break_on_hyphens=False)


def _is_file(query: str) -> bool:
    try:
        return Path(query).is_file()
    except (OSError, ValueError):  # too long for a path, or with NUL
        return False
