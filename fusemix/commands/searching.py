"""A joint space in use: `fusemix search`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusemix.commands.exits import Exit
from fusemix.commands.parsing import add_device, command_parser, parse_options


def search(arguments: Sequence[str]) -> Exit:
    """Find the items of a run's dataset that lie closest to a text or a file."""
    parser = command_parser("search", "QUERY --run RUN [--option VALUE ...]", search.__doc__)
    parser.add_argument("query", help="a text, or a file where --modality says so")
    parser.add_argument("--run", required=True, help="folder of the run, for example runs/emoji")
    parser.add_argument("--modality", default="text", help="modality of the query")
    parser.add_argument("--gallery", default="", help="modality to search; the run's other one if left out")
    parser.add_argument("-k", type=int, default=10, help="how many items to show")
    parser.add_argument("--root", default=".", help="folder of latents/")
    add_device(parser)
    options = parse_options(parser, arguments)
    from fusemix.embedder import load
    from fusemix.search import Collection, run_latents

    run = load(options.run, options.device)
    dataset = run.recipe.dataset_names[0]
    latents = run_latents(options.root, dataset, run.recipe.encoder_choices)
    others = [name for name in run.space.modalities if name != options.modality]
    gallery = options.gallery or others[0]
    source = options.query if options.modality == "text" else Path(options.query)
    hits = Collection(run.space, latents, gallery).search(run.encode(options.modality, [source])[0], options.k)
    print(f"{gallery} rows of {dataset} closest to {options.query!r}, cosine in the joint space:")
    width = max(len(hit.source) for hit in hits)
    for place, hit in enumerate(hits, start=1):
        print(f"{place:3}  {hit.score:6.3f}  {hit.source:<{width}}  {hit.split:<5}  {hit.described_by}".rstrip())
    if latents.dataset.attribution:
        print(latents.dataset.attribution)
    return Exit.COMPLETE
