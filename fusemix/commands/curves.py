"""How runs went, as a picture: `fusemix curves`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fusemix.commands.exits import Exit
from fusemix.commands.parsing import command_parser, parse_options
from fusemix.errors import FusemixError


def curves(arguments: Sequence[str]) -> Exit:
    """Draw loss, retrieval and the rest of one run or several as a PNG; of a run that still trains, what is there."""
    parser = command_parser("curves", "RUN ... [--out FILE.png]", curves.__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, for example runs/emoji")
    parser.add_argument("--out", default="", help="the picture; curves.png in the run's folder, of several runs here")
    options = parse_options(parser, arguments)
    from fusemix.benchmarks.curves import draw, save
    from fusemix.benchmarks.history import read_history, short_names

    folders = list({Path(run).resolve(): Path(run) for run in options.runs}.values())
    path = Path(options.out or (folders[0] / "curves.png" if len(folders) == 1 else "curves.png"))
    if path.suffix.lower() != ".png":
        raise FusemixError(f"--out {path}: curves are drawn as PNG: name a file that ends in .png")
    histories = []
    for folder, name in zip(folders, short_names(folders), strict=True):
        history = read_history(folder, name)
        if history is None:
            print(f"{folder} has logged no step yet: it is left out", file=sys.stderr)
            continue
        if history.unreadable:
            lines = "1 line" if history.unreadable == 1 else f"{history.unreadable} lines"
            print(f"{folder}: {lines} of metrics.jsonl cannot be read", file=sys.stderr)
        histories.append(history)
    if not histories:
        raise FusemixError(f"no step to draw yet in {', '.join(map(str, folders))}")
    save(draw(histories), path)
    print(path)
    return Exit.COMPLETE
