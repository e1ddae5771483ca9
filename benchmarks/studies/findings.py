"""The page of findings, made from results alone: nothing on it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusemix.benchmarks.bootstrap import Interval
from fusemix.recipe import load_recipe, recipe_path

from .analysis import LevelResult, StudyResult, chosen_level
from .design import setting_of
from .figures import caption
from .sentences import agreement, answer, of_difference

# Those whose latents the studies use.
RECIPES = ("emoji", "emoji-spoken")
RULES = """Each level was trained with several seeds, and all levels of a study were measured on the same items. A \
figure is the mean over queries of what a query scored, averaged over the seeds first and over both directions last; \
MRR is the mean reciprocal rank. The brackets are 95% intervals by bootstrap over items, and differences are paired, \
by item and by seed; thin strokes in the pictures are the seeds. A level did better or worse only where the interval \
of its difference leaves out 0 and every seed agrees. The intervals are not corrected for being many: of {count} \
differences, about {chance} would leave out 0 by chance if none were real. Checkpoints, and \
the defaults in the table above, are chosen on validation alone, so its figures are slightly too good, alike for all \
levels; none of them by the test split."""
WORLD = """In the synthetic world the factors behind the latents are known. Shared R² says how well a linear map \
from the embeddings reads the factors that both encoders see, private R² how well those that only one sees, which \
training should drop. Three references: raw latents, compared as they are; a ridge map from the latents of one \
modality to those of the other; and the ceiling, which is what the encoders see of the shared factors."""


def page(results: Sequence[tuple[StudyResult, Mapping[str, Any]]]) -> str:
    """Return the page.

    Args:
        results: of the studies, in the order of the page, each with what it was obtained with.
    """
    studies = [result for result, _ in results]
    count = sum(len(result.levels) - 1 for result in studies)
    lines = [
        "# Findings",
        "",
        "What of the method helps, and what does not, on small real data and in a world whose factors are known. Made"
        " by `python -m fusemix.benchmarks.studies report` from `studies/results/`, its sentences included: none is"
        " written by hand.",
        "",
        *_context(results),
        "",
        *_lines([["question", "what validation says"], *([_linked(result), answer(result)] for result in studies)]),
        "",
        *_decisions(studies),
        "## How to read it",
        "",
        RULES.format(count=count, chance=round(0.05 * count, 1)),
    ]
    if any(result.references for result in studies):
        lines += ["", WORLD]
    for result in studies:
        lines += ["", *_section(result)]
    return "\n".join(lines) + "\n"


def _linked(result: StudyResult) -> str:
    return f"[{result.question}](#{result.name})"


def _context(results: Sequence[tuple[StudyResult, Mapping[str, Any]]]) -> list[str]:
    machines = {
        f"{of['cores']} cores of {of['processor']}, {of['gpu'] or 'no GPU'}; torch {of['torch']},"
        f" Python {of['python']}, fusemix {of['fusemix']}"
        for result, _ in results
        for of in result.machines
    }
    quick = any(data["quick"] for _, data in results)
    warning = ["**A quick trial: a few steps on a few items. The figures mean nothing.**", ""] if quick else []
    return [*warning, f"Machine: {'; '.join(sorted(machines))}."]


def _decisions(studies: Sequence[StudyResult]) -> list[str]:
    recipes = {name: load_recipe(recipe_path(name)).fuse for name in RECIPES}
    rows, apart = [], []
    for result in studies:
        if result.setting is None:
            continue
        chosen = chosen_level(result)
        why = "stays, as none was better" if chosen is result.baseline else f"better than {result.baseline.value}"
        given = {name: setting_of(settings, result.setting) for name, settings in recipes.items()}
        rows.append([f"`{result.setting}`", f"[{result.name}](#{result.name})", f"`{chosen.value}`", why])
        rows[-1] += [f"`{value}`" for value in given.values()]
        apart += [f"`{result.setting}` of {name}" for name, value in given.items() if value != chosen.value]
    if not rows:
        return []
    head = ["setting", "study", "validation chooses", "why", *recipes]
    told = f"Not as validation chooses: {', '.join(apart)}." if apart else "The recipes have what validation chooses."
    return ["## Defaults of the recipes", "", *_lines([head, *rows]), "", told, ""]


def _section(result: StudyResult) -> list[str]:
    counts = ", ".join(f"{count:,} {split} items" for split, count in result.items.items())
    return [
        f'<a id="{result.name}"></a>',
        "",
        f"## {result.question}",
        "",
        f"{answer(result)} {agreement(result)}",
        "",
        *_table(result),
        "",
        f"![{caption(result)}](studies/results/{result.name}.png)",
        "",
        f"Measured on {result.data}, {' and '.join(result.edge)}: {counts}; {result.seeds} seeds. The same for all"
        f" levels: {result.fixed}.",
    ]


def _table(result: StudyResult) -> list[str]:
    synthetic = bool(result.references)
    head = ["", "train items", "batch", "validation MRR", "difference", "test MRR", "difference", "test R@1 %"]
    head += ["seeds, validation"] + (["shared R²", "private R²"] if synthetic else [])
    rows = [_row(level, synthetic=synthetic) for level in (*result.levels, *result.references)]
    return _lines([head, *rows])


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, its first row the head."""
    return [f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]


def _row(level: LevelResult, *, synthetic: bool) -> list[str]:
    val, test = level.splits["val"], level.splits["test"]
    trained = level.items is not None
    seeds = f"{min(val.of_seeds):.3f} to {max(val.of_seeds):.3f}" if trained else ""
    cells = [level.name, f"{level.items:,}" if trained else "", f"{level.batch_size:,}" if trained else ""]
    for split in (val, test):
        cells += [_interval(split.mrr), of_difference(split.difference) if split.difference else ""]
    recall = Interval(*(100 * value for value in (test.recall.value, test.recall.low, test.recall.high)))
    cells += [f"{recall.value:.1f} [{recall.low:.1f}, {recall.high:.1f}]", seeds]
    if synthetic:
        cells += [f"{value:.2f}" if value is not None else "" for value in (level.shared, level.private)]
    return cells


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
