"""`python -m fusemix.benchmarks.page [FILE ...]`: take results into the page, and write it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fusemix.benchmarks.results import read_json
from fusemix.benchmarks.studies.analysis import read_results
from fusemix.benchmarks.studies.catalogue import STUDIES
from fusemix.errors import FusemixError
from fusemix.files import replacing

from .writing import page

BENCHMARKS = Path(__file__).resolve().parents[1]
HERE = BENCHMARKS / "page"


def main(arguments: Sequence[str] | None = None) -> None:
    """Copy results beside the page's others, and write the page; bad input ends in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m fusemix.benchmarks.page", description="Write benchmarks/RESULTS.md from committed results."
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="results of fusemix to take into it")
    options = parser.parse_args(arguments)
    try:
        for file in options.files:
            record = read_json(file)
            # The figures of every query would make the repository large; the page has no use for them.
            record.pop("per_query", None)
            with replacing(HERE / "results" / f"{record['benchmark']}-{file.stem}.json") as temporary:
                temporary.write_text(json.dumps(record, indent=2) + "\n")
        with replacing(BENCHMARKS / "RESULTS.md") as temporary:
            temporary.write_text(committed_page())
    except FusemixError as error:
        sys.exit(f"error: {error}")
    print(f"written: {BENCHMARKS / 'RESULTS.md'}")


def committed_page() -> str:
    """Return the page of what is committed."""
    records = [read_json(path) for path in sorted((HERE / "results").glob("*.json"))]
    order = [study.name for study in STUDIES]
    studies = [study for study, _ in read_results(BENCHMARKS / "studies" / "results")]
    studies.sort(key=lambda study: order.index(study.name))
    return page(records, studies, json.loads((HERE / "published.json").read_text()))


if __name__ == "__main__":
    main()
