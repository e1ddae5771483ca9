"""`python -m fusemix.benchmarks.studies run|report [STUDY ...] --root DIR [--seeds N] [--quick]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fusemix.benchmarks.curves import save
from fusemix.benchmarks.results import write_json
from fusemix.errors import FusemixError
from fusemix.files import replacing

from .analysis import analyse, read_results
from .catalogue import STUDIES, chosen_studies
from .design import Study, quickly
from .figures import draw
from .findings import page
from .running import run

BENCHMARKS = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run studies, or report what they found; bad input ends in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m fusemix.benchmarks.studies",
        description="Run studies of the method, or report what they found.",
        epilog=f"studies: {', '.join(study.name for study in STUDIES)}",
    )
    parser.add_argument("action", choices=("run", "report"), help="do the runs that are missing, or write the page")
    parser.add_argument("studies", nargs="*", metavar="STUDY", help="which; all if left out")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of latents/ and of the runs, studies/")
    parser.add_argument("--seeds", type=int, help="runs of each level, instead of what each study says")
    parser.add_argument("--quick", action="store_true", help="few steps on few items: whether it runs, no more")
    parser.add_argument(
        "--out", type=Path, help=f"where to write FINDINGS.md and studies/results/; {BENCHMARKS} if left out"
    )
    options = parser.parse_args(arguments)
    try:
        studies = [_as_asked(study, options) for study in chosen_studies(options.studies)]
        if options.action == "run":
            run(studies, options.root)
        else:
            report(studies, options.root, _target(options), quick=options.quick)
    except FusemixError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command to go on")


def report(studies: Sequence[Study], root: Path, out: Path, *, quick: bool) -> None:
    """Write the results and pictures of studies, and the page of all results that are there.

    Raises:
        FusemixError: where runs are missing.
    """
    folder = out / "studies" / "results"
    for study in studies:
        result = analyse(study, root)
        told = {"quick": quick}
        write_json(folder / f"{study.name}.json", f"studies/{study.name}", {"study": result.to_dict()}, told)
        save(draw(result), folder / f"{study.name}.png")
    order = [study.name for study in STUDIES]
    results = sorted(read_results(folder), key=lambda found: order.index(found[0].name))
    with replacing(out / "FINDINGS.md") as temporary:
        temporary.write_text(page(results))
    print(f"{len(results)} {'study' if len(results) == 1 else 'studies'}: {out / 'FINDINGS.md'}")


def _as_asked(study: Study, options: argparse.Namespace) -> Study:
    if options.seeds is not None:
        study = replace(study, seeds=options.seeds)
    return quickly(study) if options.quick else study


def _target(options: argparse.Namespace) -> Path:
    if options.out is not None:
        return Path(options.out)
    if options.quick:
        raise FusemixError("a quick trial is no result: say with --out where else to write it")
    return BENCHMARKS


if __name__ == "__main__":
    main()
