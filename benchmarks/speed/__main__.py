"""`python -m fusemix.benchmarks.speed BENCHMARK [--quick] [--out FILE]`."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from fusemix.benchmarks.context import machine
from fusemix.benchmarks.results import write_json

BENCHMARKS = ("batches", "bootstrap", "extraction", "latents", "loss", "memory", "ranks", "step")


def main() -> None:
    """Run one benchmark, print its ratios with the machine, and write them as JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m fusemix.benchmarks.speed", description=__doc__)
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast it is")
    parser.add_argument("--out", type=Path, help="where to write the result as JSON")
    options = parser.parse_args()
    context = machine()
    print(", ".join(f"{key} {value}" for key, value in context.items() if value is not None))
    result = import_module(f"fusemix.benchmarks.speed.{options.benchmark}").run(quick=options.quick)
    if options.out is not None:
        write_json(options.out, f"speed/{options.benchmark}", result, {"quick": options.quick, "machine": context})


if __name__ == "__main__":
    main()
