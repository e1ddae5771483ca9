from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from fusemix.benchmarks.bootstrap import Interval
from fusemix.benchmarks.page.__main__ import BENCHMARKS, HERE, committed_page, main
from fusemix.benchmarks.page.writing import page
from fusemix.benchmarks.report import interval

PUBLISHED = [
    {"system": "A", "task": "COCO 5K, R@1 %", "figures": "50.0", "source": "a paper", "standing": "paper"},
    {"system": "B", "task": "a | b", "figures": "1", "source": "hearsay", "standing": "not checked"},
]


def test_the_committed_page_is_what_the_committed_results_say() -> None:
    assert (BENCHMARKS / "RESULTS.md").read_text() == committed_page()


def test_every_recipe_that_runs_here_is_on_the_page() -> None:
    names = {path.stem for path in (HERE / "results").glob("*.json")}
    assert {
        "bakeoff-emoji",
        "comparison-emoji",
        "retrieval-emoji-spoken",
        "zero-shot-emoji-image-emoji-groups",
    } <= names
    assert "### The synthetic world" in committed_page()


def test_the_page_of_the_bake_off_has_the_figures_of_the_committed_one() -> None:
    told = (BENCHMARKS / "BAKEOFF.md").read_text()
    assert "](BAKEOFF.png)" in told
    assert (BENCHMARKS / "BAKEOFF.png").exists()
    rows = [[cell.strip(" \\*") for cell in line.split("|")[1:-1]] for line in told.splitlines()]
    record = json.loads((HERE / "results" / "bakeoff-emoji.json").read_text())
    fractions = sorted({cell["fraction"] for cell in record["cells"]})
    for direction in record["queries"]:
        for method in record["methods"]:
            of = {
                cell["fraction"]: cell["metrics"][direction]["R@1"]
                for cell in record["cells"]
                if cell["method"] == method
            }
            assert [method, *(interval("R@1", Interval(**of[fraction])) for fraction in fractions)] in rows


def test_every_table_has_as_many_cells_in_each_row() -> None:
    for line, after in pairwise(committed_page().splitlines()):
        if line.startswith("|") and after.startswith("|"):
            assert line.replace("\\|", "").count("|") == after.replace("\\|", "").count("|")


def test_what_others_published_stands_apart_with_its_source_and_standing() -> None:
    ours, others = page([], [], PUBLISHED).split("## What others published")
    assert "50.0" not in ours
    assert "| A | COCO 5K, R@1 % | 50.0 | a paper | paper |" in others
    assert r"| B | a \| b | 1 | hearsay | not checked |" in others
    for figure in json.loads((HERE / "published.json").read_text()):
        assert all(figure[key] for key in ("system", "task", "figures", "source", "standing"))


def test_what_is_no_result_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text("{}")
    with pytest.raises(SystemExit, match=rf"^error: {file} is no result of fusemix"):
        main([str(file)])
    file.write_text('{"schema_version": 99}')
    with pytest.raises(SystemExit, match="has results schema 99"):
        main([str(file)])
