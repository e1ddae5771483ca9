"""Which class an item is of, by the names of the classes or by a probe: `fusemix classify`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from fusemix.commands.exits import Exit
from fusemix.commands.parsing import command_parser, parse_options, summary
from fusemix.commands.subjects import TEXT, Subject, add_run_options, of_file, of_run, tell
from fusemix.errors import FusemixError, nearest
from fusemix.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from fusemix.benchmarks.class_prompts import ClassPrompts
    from fusemix.benchmarks.classification import ClassificationResult
    from fusemix.benchmarks.labelled import Fold, LabelledRows
    from fusemix.embedder import Run
    from fusemix.latents.paired import PairedLatents

FEWEST_FOLDS = 3
MANY_PROMPTS = 1000
NONE, VALIDATION = "none", "validation"


def classify(arguments: Sequence[str]) -> Exit:
    """Classify a dataset's items: zero-shot by the names of the classes, or by a linear or kNN probe."""
    methods = {"zero-shot": zero_shot, "linear": linear, "knn": knn}
    if not arguments:
        raise FusemixError(f"how? fusemix classify METHOD ..., with one of {', '.join(methods)}")
    if arguments[0] in ("-h", "--help"):
        parser = command_parser("classify", "METHOD RUN_OR_FILE [--option VALUE ...]", classify.__doc__)
        for name, method in methods.items():
            parser.add_argument(name, help=summary(method.__doc__).rstrip("."))
        parse_options(parser, arguments)
    if arguments[0] not in methods:
        raise FusemixError(f"unknown method {arguments[0]!r}: {nearest(arguments[0], methods)}")
    return methods[arguments[0]](arguments[1:])


def zero_shot(arguments: Sequence[str]) -> Exit:
    """Classify a run's embeddings by those of the names of the classes."""
    parser = command_parser(
        "classify zero-shot", "RUN --classes NAME_OR_FILE [--option VALUE ...]", zero_shot.__doc__
    )
    parser.add_argument("subject", metavar="RUN", help="folder of the run, for example runs/emoji")
    _add_options(parser, required=True)
    parser.add_argument(
        "--templates",
        nargs="+",
        default=[],
        metavar="TEMPLATE",
        help="which of the file's lists of templates, or templates such as 'a photo of a {}.'; the first list if left"
        " out",
    )
    parser.add_argument("--text", default=TEXT, metavar="MODALITY", help="modality of the run that embeds the names")
    options = parse_options(parser, arguments)
    prompts = _prompts(options.classes, options.templates)
    if Path(options.subject).is_file():
        raise FusemixError(
            f"{options.subject} is a file: zero-shot classification needs a run, which embeds the names"
        )
    import numpy as np
    import torch

    from fusemix.benchmarks.labelled import labelled_rows
    from fusemix.benchmarks.zero_shot import zero_shot as by_names
    from fusemix.embedder import load

    run = load(options.subject, options.device)
    run.space.adapter(options.text)
    subject = of_run(run, options)
    tested = _tested(subject.latents, options.split)
    _check_unseen(subject, tested)
    latents = subject.latents.at(torch.from_numpy(np.flatnonzero(np.isin(subject.latents.splits, tested))))
    labels = _labels(latents, subject.modality, prompts.names, options)
    rows = labelled_rows(latents, subject.modality, labels, prompts.names, run.space)
    with _embedding(run, options.text, prompts) as embed:
        result = by_names(prompts, embed, rows)
    return _tell(result, subject, options, "zero-shot")


@contextmanager
def _embedding(run: Run, modality: str, prompts: ClassPrompts) -> Iterator[Callable[[Sequence[str]], Tensor]]:
    """Yield what embeds prompts, and tells how far it is where there are many."""
    total = len(set(prompts.names)) * len(prompts.templates)
    if total < MANY_PROMPTS:
        yield partial(run.encode, modality)
        return
    with Progress(total, "embed prompts", "prompts") as progress:

        def embed(texts: Sequence[str]) -> Tensor:
            embedded = run.encode(modality, texts)
            progress.advance(len(texts))
            return embedded

        yield embed


def linear(arguments: Sequence[str]) -> Exit:
    """Fit CLIP's logistic regression to the training rows of embeddings or latents."""
    parser = command_parser("classify linear", "RUN_OR_FILE [--option VALUE ...]", linear.__doc__)
    _add_probe_options(parser)
    parser.add_argument(
        "--c", default="0.316", help=f"inverse strength of the penalty, or {VALIDATION} to choose it on those rows"
    )
    parser.add_argument("--max-iter", type=int, default=1000, metavar="N", help="iterations at most")
    options = parse_options(parser, arguments)
    from fusemix.benchmarks.probes import LinearProbe, linear_probe

    probe = LinearProbe(_number(options.c, "--c", VALIDATION), options.max_iter)
    subject, rows, folds = _probed(options)
    with warnings.catch_warnings():
        # The table has these as notes.
        warnings.filterwarnings("ignore", r"fold .*(did not converge)", UserWarning)
        result = linear_probe(rows, folds, probe)
    return _tell(result, subject, options, "linear-probe")


def knn(arguments: Sequence[str]) -> Exit:
    """Let the nearest training rows of embeddings or latents vote."""
    parser = command_parser("classify knn", "RUN_OR_FILE [--option VALUE ...]", knn.__doc__)
    _add_probe_options(parser)
    parser.add_argument("--neighbours", type=int, default=20, metavar="K", help="how many vote")
    parser.add_argument(
        "--temperature",
        default="0.07",
        metavar="T",
        help=f"of votes exp(cosine / T), or {NONE} for one vote each",
    )
    options = parse_options(parser, arguments)
    from fusemix.benchmarks.probes import NeighbourProbe, knn_probe

    probe = NeighbourProbe(options.neighbours, _number(options.temperature, "--temperature", NONE))
    subject, rows, folds = _probed(options)
    return _tell(knn_probe(rows, folds, probe), subject, options, "knn-probe")


def _add_options(parser: ArgumentParser, *, required: bool) -> None:
    optional = "" if required else "; those of the labels if left out"
    parser.add_argument(
        "--classes",
        required=required,
        default=None if required else "",
        metavar="NAME_OR_FILE",
        help=f"packaged class names (imagenet, esc50, emoji-groups) or a .json file of your own{optional}",
    )
    parser.add_argument(
        "--labels",
        default="",
        metavar="FILE",
        help=".csv or .tsv with the columns item and label, .json (item -> label), or latents of captions that are"
        " labels; if left out, what emoji-groups says, or the dataset's texts",
    )
    parser.add_argument("--modality", default="", help="which is classified; image if there is one, else another")
    parser.add_argument("--split", default="", help="which is classified; test, or each fold, if left out")
    parser.add_argument("--latents", default="", metavar="FILE", help="a latents file in place of a dataset's")
    add_run_options(parser)


def _add_probe_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "subject", metavar="RUN_OR_FILE", help="folder of a run, for its embeddings, or a latents file, as it is"
    )
    _add_options(parser, required=False)


def _probed(options: Namespace) -> tuple[Subject, LabelledRows, list[Fold]]:
    """Return what is probed, its rows with their classes, and the folds."""
    if not options.classes and not options.labels:
        raise FusemixError("which classes? name them with --classes, or give each item's with --labels")
    names = _prompts(options.classes, []).names if options.classes else None
    from fusemix.benchmarks.labelled import holdout, labelled_rows, leave_one_out
    from fusemix.embedder import load

    path = Path(options.subject)
    if path.is_file():
        for name in ("dataset", "latents", "modality"):
            if options[name]:
                raise FusemixError(f"--{name} belongs to a run, and {path} is a latents file: leave it out")
        subject = of_file(path)
    else:
        subject = of_run(load(path, options.device), options)
    latents, modality = subject.latents, subject.modality
    tested = _tested(latents, options.split)
    _check_unseen(subject, tested)
    labels = _labels(latents, modality, names, options)
    rows = labelled_rows(latents, modality, labels, names, subject.run.space if subject.run else None)
    if _has_folds(latents):
        return subject, rows, [fold for fold in leave_one_out(rows) if fold.name in tested]
    return subject, rows, holdout(rows, tested[0])


def _prompts(classes: str, templates: Sequence[str]) -> ClassPrompts:
    """Read class names, with one of their lists of templates, or with templates given one by one."""
    from fusemix.benchmarks.class_prompts import load_class_prompts

    if len(templates) == 1 and not set(templates[0]) & set(" {}"):
        return load_class_prompts(classes, templates[0])
    prompts = load_class_prompts(classes)
    return replace(prompts, templates=tuple(templates), title=f"{Path(classes).stem}/own") if templates else prompts


def _has_folds(latents: PairedLatents) -> bool:
    """Return whether the splits are folds, as ESC-50's and UrbanSound8K's are, and not parts with a purpose."""
    splits = set(latents.splits)
    return len(splits) >= FEWEST_FOLDS and not splits & {"train", "val", "test"}


def _tested(latents: PairedLatents, split: str) -> list[str]:
    """Return the splits to classify: the one that is asked for, else the test split, else all folds.

    Raises:
        FusemixError: where there is no such split, naming those that there are.
    """
    if _has_folds(latents) and not split:
        return sorted(set(latents.splits))
    latents.split(split or "test")
    return [split or "test"]


def _check_unseen(subject: Subject, tested: Sequence[str]) -> None:
    """Refuse to classify items that a run has learned from.

    Raises:
        FusemixError: naming their split.
    """
    if subject.run is None or subject.latents.dataset.name not in subject.run.recipe.dataset_names:
        return
    if seen := sorted(set(tested).intersection(subject.run.recipe.fuse.learned_splits)):
        raise FusemixError(
            f"the run {subject.name} was trained on the split {seen[0]!r}: classify another with --split"
        )


def _labels(
    latents: PairedLatents, modality: str, names: Sequence[str] | None, options: Namespace
) -> dict[str, str | int]:
    """Return item -> class: as a file has it, else by the groups of emojis, else the one text of the item."""
    from fusemix.benchmarks.class_prompts import EMOJI_GROUPS, emoji_groups
    from fusemix.benchmarks.label_files import read_labels
    from fusemix.benchmarks.labelled import check_labelled, texts_as_labels

    if options.labels:
        given = read_labels(Path(options.labels), names)
        check_labelled(latents, modality, given, options.labels)
        return {item: label for item, label in given.items() if label is not None}
    if options.classes == EMOJI_GROUPS:
        return dict(emoji_groups(latents.items.tolist()))
    dataset, remedy = latents.dataset.name, "give the class of each item with --labels FILE"
    if modality == TEXT or TEXT not in latents.modalities:
        raise FusemixError(f"no labels for the items of {dataset!r}: {remedy}")
    try:
        return dict(texts_as_labels(latents, TEXT))
    except FusemixError as error:
        raise FusemixError(f"the texts of {dataset!r} are no labels: {error}; {remedy}") from error


def _number(given: str, option: str, word: str) -> float | None:
    """Return a number, or None for a word that stands in its place."""
    if given == word:
        return None
    try:
        return float(given)
    except ValueError as error:
        raise FusemixError(f"{option} {given}: give a number, or {word}") from error


def _tell(result: ClassificationResult, subject: Subject, options: Namespace, benchmark: str) -> Exit:
    """Print the table and write the result, under a name that says of what it is."""
    from fusemix.benchmarks.class_prompts import PLACE
    from fusemix.benchmarks.classification_report import classification_report

    dataset = "" if result.dataset == subject.name else result.dataset
    classes = Path(options.classes or options.labels).stem
    parts = [subject.name, dataset, result.modality, classes, options.split]
    about = {
        "run" if subject.run else "latents": subject.name if subject.run else str(options.subject),
        "class_names": options.classes,
        "labels": options.labels,
        "own_templates": [text for text in options.get("templates", []) if PLACE in text],
    }
    tell(options, benchmark, parts, classification_report(result, subject.title), result.to_dict(), about)
    return Exit.COMPLETE
