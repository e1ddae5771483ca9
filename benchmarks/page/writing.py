"""The page of results, written from committed JSON alone, its figures and its sentences.

What was measured here and what others published stand in separate tables, because encoders, data and protocols
differ: no row of the one is to be compared with a row of the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusemix.benchmarks.bootstrap import Interval
from fusemix.benchmarks.report import CAVEAT, Table, difference, interval, label, piped
from fusemix.benchmarks.retrieval_report import REFITTED
from fusemix.benchmarks.studies.analysis import StudyResult
from fusemix.benchmarks.studies.sentences import answer

Record = Mapping[str, Any]

SHOWN = ("R@1", "R@5", "R@10", "MRR", "MedR")
CLASSES = ("zero-shot", "linear-probe", "knn-probe")
_INTRODUCTION = """Made by `python -m fusemix.benchmarks.page` from `page/results/`, `page/published.json` and \
`studies/results/`. The figures come from machines without a GPU and from what installs from package registries: \
nothing here was measured on COCO, Flickr30K, AudioCaps or Clotho, and no figure here is to be compared with one of \
[others](#what-others-published)."""
_OTHERS = """Figures of others, not measured here: other encoders, other data, other protocols. *Standing* says how \
far they can be trusted: `paper` and `project page` were read there; the others are told by third parties."""


def page(records: Sequence[Record], studies: Sequence[StudyResult], published: Sequence[Mapping[str, str]]) -> str:
    """Return the page.

    Args:
        records: results, as `fusemix.benchmarks.results.write_json` stores them.
        studies: those of the synthetic world are answered here, with a link to the others.
        published: `system`, `task`, `figures`, `source` and `standing` of each figure of others.
    """
    sections = [("comparison", _comparison), ("retrieval", _retrieval), ("bakeoff", _bakeoff)]
    parts = ["# Results", _INTRODUCTION, "## What was measured here", _machines(records)]
    for benchmark, section in sections:
        parts += [part for record in records if record["benchmark"] == benchmark for part in section(record)]
    if classified := [record for record in records if record["benchmark"] in CLASSES]:
        parts += _classes(classified)
    parts += [*_synthetic(studies), "## What others published", _OTHERS, _texts(_published(published))]
    return "\n\n".join(parts) + "\n"


def _machines(records: Sequence[Record]) -> str:
    told = {
        ", ".join(f"{name} {value}" for name, value in record["machine"].items() if value is not None)
        for record in records
    }
    return f"Machine: {'; '.join(sorted(told))}. {CAVEAT}"


def _interval(stored: Mapping[str, float]) -> Interval:
    return Interval(stored["value"], stored["low"], stored["high"])


def _figures(metrics: Mapping[str, Mapping[str, float]], shown: Sequence[str]) -> list[str]:
    return [interval(metric, _interval(metrics[metric])) for metric in shown]


def _measured_on(result: Record) -> str:
    direction = result["directions"][0]
    return (
        f"{result['items']} items of the {result['split']} split of {result['dataset']}, protocol"
        f" {result['protocol']['name']}; {direction['queries']} queries and {direction['gallery']} gallery rows"
        f" {direction['name']}; R@k is hit@k."
    )


def _comparison(record: Record) -> list[str]:
    methods = record["methods"]
    seeds = ", ".join(str(seed) for seed in methods[0]["seeds"])
    parts = [
        f"### What the method adds, on {record['recipe']}",
        f"{_measured_on(methods[0]['result'])} Means of the seeds {seeds}; ridge has no seed. The last column is the"
        " paired difference of R@1 to ridge.",
    ]
    if record["refit"]:
        parts.append(REFITTED)
    for index, direction in enumerate(methods[0]["result"]["directions"]):
        rows = [[direction["name"], *map(label, SHOWN), "R@1 % minus ridge"]]
        for method in methods:
            stored = method["difference"].get(direction["name"])
            told = difference("R@1", _interval(stored["R@1"])) if stored else ""
            rows.append([method["name"], *_figures(method["result"]["directions"][index]["metrics"], SHOWN), told])
        parts.append(_table(rows))
    return parts


def _retrieval(record: Record) -> list[str]:
    rows = [["", "queries", "gallery", *map(label, SHOWN), "chance R@1 %"]]
    rows += [
        [
            direction["name"] + ("" if direction["trained"] else ", emergent"),
            str(direction["queries"]),
            str(direction["gallery"]),
            *_figures(direction["metrics"], SHOWN),
            f"{100 * direction['chance']['R@1']:.2f}",
        ]
        for direction in record["directions"]
    ]
    learned = f" Its adapters learned from {' and '.join(record['learned_from'])}."
    return [f"### One run of {record['run']}", _measured_on(record) + learned, _table(rows)]


def _bakeoff(record: Record) -> list[str]:
    settings = record["settings"]
    parts = [
        f"### Ways to align the same latents, on {record['recipe']}",
        f"R@1 % by part of the training items, means of {settings['seeds']} seeds, each method tuned on validation"
        f" over {settings['budget']} configurations and not refitted."
        " Figure, times and choices: [the bake-off](BAKEOFF.md).",
    ]
    fractions = sorted({cell["fraction"] for cell in record["cells"]})
    for direction in record["queries"]:
        rows = [[direction, *(f"{100 * fraction:g} %" for fraction in fractions)]]
        for method in record["methods"]:
            cells = {cell["fraction"]: cell for cell in record["cells"] if cell["method"] == method}
            found = [_interval(cells[fraction]["metrics"][direction]["R@1"]) for fraction in fractions]
            rows.append([method, *(interval("R@1", one) for one in found)])
        parts.append(_table(rows))
    return parts


def _classes(records: Sequence[Record]) -> list[str]:
    metrics = ("acc1", "acc5", "mean_per_class_recall")
    rows = [["", "on", "kind", "rows", "classes", "acc1 %", "acc5 %", "mean per-class recall %", "commonest %"]]
    for record in records:
        found = [_interval(record["metrics"][name]) if name in record["metrics"] else None for name in metrics]
        rows.append(
            [
                str(record["benchmark"]),
                f"{record['dataset']}, {record['modality']}",
                str(record["kind"]),
                str(record["rows"]),
                str(record["classes"]),
                *(interval("R@1", one) if one else "" for one in found),
                f"{100 * record['commonest']:.1f}",
            ]
        )
    told = "Groups of pictograms as classes. The last column is acc1 of always saying the commonest class."
    return ["### Classes", told, _table(rows)]


def _synthetic(studies: Sequence[StudyResult]) -> list[str]:
    of_worlds = [study for study in studies if any(level.shared is not None for level in study.levels)]
    rows = [["question", "what validation says"], *([study.question, answer(study)] for study in of_worlds)]
    told = "Worlds whose factors are known. These studies and those on emoji: [findings](FINDINGS.md)."
    return ["### The synthetic world", told, _texts(rows)]


def _published(published: Sequence[Mapping[str, str]]) -> list[list[str]]:
    names = ("system", "task", "figures", "source", "standing")
    return [list(names), *([figure[name] for name in names] for figure in published)]


def _table(rows: Table) -> str:
    return "\n".join(piped(rows))


def _texts(rows: Table) -> str:
    """Return a table of words, which read better from the left."""
    head, rule, *body = piped(rows)
    return "\n".join([head, rule.replace("---:", "---"), *body])
