"""How alike encoders see the same items, before anything is trained: `fusemix cka`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusemix.commands.exits import Exit
from fusemix.commands.parsing import command_parser, parse_options
from fusemix.commands.subjects import add_result_options, tell
from fusemix.errors import FusemixError


def cka(arguments: Sequence[str]) -> Exit:
    """Compare stored latents of any encoders by linear CKA: which pair of encoders to fuse first."""
    parser = command_parser("cka", "FILE FILE ... [--plot FILE.png] [--option VALUE ...]", cka.__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", help="latents files of one dataset, two or more")
    parser.add_argument("--split", default="train", help="items that are compared")
    parser.add_argument("--plot", default="", metavar="FILE.png", help="draw the matrix as a heat map, too")
    add_result_options(parser)
    options = parse_options(parser, arguments)
    plot = Path(options.plot)
    if options.plot and plot.suffix.lower() != ".png":
        raise FusemixError(f"--plot {plot}: the heat map is drawn as PNG: name a file that ends in .png")
    from fusemix.benchmarks.cka import cka_matrix
    from fusemix.benchmarks.cka_report import cka_report
    from fusemix.latents.file import LatentsFile

    files = [LatentsFile(path) for path in options.files]
    matrix = cka_matrix(files, options.split)
    about = {"files": [str(file.path) for file in files], "encoders": [file.spec.name for file in files]}
    tell(options, "cka", [matrix.dataset, matrix.split], cka_report(matrix), matrix.to_dict(), about)
    if options.plot:
        from fusemix.benchmarks.curves import save
        from fusemix.benchmarks.heat_map import draw

        save(draw(matrix), plot)
        print(f"heat map: {plot}")
    return Exit.COMPLETE
