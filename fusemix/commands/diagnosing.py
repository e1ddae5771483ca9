"""What a joint space looks like apart from what it retrieves: `fusemix diagnose`."""

from __future__ import annotations

from collections.abc import Sequence

from fusemix.commands.exits import Exit
from fusemix.commands.parsing import command_parser, parse_options
from fusemix.commands.subjects import add_run_options, run_dataset, tell


def diagnose(arguments: Sequence[str]) -> Exit:
    """Look at a run's embeddings: modality gap, alignment, uniformity, effective rank, hubs."""
    parser = command_parser("diagnose", "RUN [--option VALUE ...]", diagnose.__doc__)
    parser.add_argument("run", metavar="RUN", help="folder of the run, for example runs/emoji")
    parser.add_argument("--split", default="test", help="items that are looked at")
    parser.add_argument("--neighbours", type=int, default=10, metavar="K", help="nearest rows in which hubs turn up")
    add_run_options(parser)
    options = parse_options(parser, arguments)
    from fusemix.benchmarks.diagnostics import diagnose as look_at
    from fusemix.benchmarks.diagnostics_report import diagnostics_report
    from fusemix.embedder import load

    run = load(options.run, options.device)
    latents = run_dataset(run, options)
    figures = look_at(run.space, latents, options.split, options.neighbours)
    run_name, dataset = run.folder.resolve().name, latents.dataset.name
    parts = [run_name, "" if dataset == run_name else dataset, "" if options.split == "test" else options.split]
    report = diagnostics_report(figures, run_name)
    tell(options, "diagnostics", parts, report, figures.to_dict(), {"run": run_name})
    return Exit.COMPLETE
