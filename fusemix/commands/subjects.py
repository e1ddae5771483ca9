"""What a benchmark beyond retrieval measures: a run's datasets, or a latents file, and where its result goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from fusemix.commands.parsing import add_device
from fusemix.errors import FusemixError

if TYPE_CHECKING:
    from fusemix.benchmarks.report import Report
    from fusemix.embedder import Run
    from fusemix.latents.paired import PairedLatents


TEXT = "text"


@dataclass(frozen=True)
class Subject:
    """Latents to measure: through the joint space of a run, or as they are."""

    name: str
    latents: PairedLatents
    modality: str
    run: Run | None

    @property
    def title(self) -> str:
        """What is measured, in words."""
        kind = "latents of" if self.run is None else "embeddings of the run"
        return f"{self.modality} {kind} {self.name}"


def add_run_options(parser: ArgumentParser) -> None:
    """Add `--dataset`, those of `add_result_options`, and `--device`."""
    parser.add_argument("--dataset", default="", help="whose latents under --root to take; the run's if left out")
    add_result_options(parser)
    add_device(parser)


def add_result_options(parser: ArgumentParser) -> None:
    """Add `--root`, `--out` and `--markdown`."""
    parser.add_argument("--root", default=".", help="folder of latents/ and results/")
    parser.add_argument(
        "--out", default="", metavar="FILE.json", help="the result; a name of its own under results/ if left out"
    )
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown, to paste")


def run_dataset(run: Run, options: Namespace) -> PairedLatents:
    """Load the latents of the dataset that is asked for, or of the run's only one, by the run's encoders.

    Raises:
        FusemixError: where the run has several datasets and none is named, or there are no such latents.
    """
    from fusemix.search import run_latents

    names = run.recipe.dataset_names
    if not options.dataset and len(names) > 1:
        raise FusemixError(f"{run.folder} has the datasets {', '.join(names)}: choose one with --dataset")
    return run_latents(options.root, options.dataset or names[0], run.recipe.encoder_choices)


def of_run(run: Run, options: Namespace) -> Subject:
    """Return one modality of a run's dataset, or the latents file that is to take its place.

    Args:
        run: the run.
        options: dataset, root, latents, modality.

    Raises:
        FusemixError: where the run has no such modality, or as `run_dataset`.
    """
    latents = of_file(Path(options.latents)).latents if options.latents else run_dataset(run, options)
    there = [name for name in run.space.modalities if name in latents.modalities]
    others = [name for name in there if name != TEXT]
    modality = options.modality or ("image" if "image" in others else next(iter(others), TEXT))
    run.space.adapter(modality)
    return Subject(run.folder.resolve().name, latents, modality, run)


def of_file(path: Path) -> Subject:
    """Return the latents of a file as they are."""
    from fusemix.latents.file import LatentsFile
    from fusemix.latents.paired import PairedLatents

    modality = LatentsFile(path).spec.modality
    return Subject(path.stem, PairedLatents.load({modality: path}), modality, None)


def tell(
    options: Namespace,
    benchmark: str,
    name: Sequence[str],
    report: Report,
    result: Mapping[str, object],
    about: Mapping[str, object],
) -> None:
    """Print a report, and write the result to `results/<benchmark>/<name>.json` or the file that is asked for.

    Args:
        options: those of `add_result_options`.
        benchmark: name of the benchmark.
        name: parts that tell the result from others of the benchmark; empty ones are left out.
        report: what is printed.
        result: what was measured.
        about: what it was measured of.
    """
    from fusemix.benchmarks.context import machine
    from fusemix.benchmarks.results import write_json

    path = Path(options.out or Path(options.root) / "results" / benchmark / f"{'-'.join(filter(None, name))}.json")
    write_json(path, benchmark, result, {**about, "machine": machine()})
    print(f"{report.markdown() if options.markdown else report.text()}\n\nresult: {path}")
