from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from fusemix.benchmarks.studies.__main__ import BENCHMARKS, main
from fusemix.benchmarks.studies.analysis import StudyResult, read_results
from fusemix.benchmarks.studies.catalogue import STUDIES
from fusemix.benchmarks.studies.findings import page
from fusemix.benchmarks.studies.sentences import answer

from .made_up import made_up

BETTER, OPEN = (0.02, 0.01, 0.03), (0.02, -0.01, 0.05)


def told(*results: StudyResult, quick: bool = False) -> str:
    return page([(result, {"quick": quick}) for result in results])


def test_the_page_answers_each_question_first_and_shows_its_picture_and_figures_later() -> None:
    result = made_up([BETTER], [OPEN])
    text = told(result)
    assert f"| [How many blocks?](#depth) | {answer(result)} |" in text
    assert '<a id="depth"></a>' in text
    assert "(studies/results/depth.png)" in text
    assert "2 cores of a processor, no GPU; torch 2" in text
    row = next(line for line in text.splitlines() if line.startswith("| level 1 "))
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "level 1",
        "100",
        "50",
        "0.320 [0.310, 0.330]",
        "+0.020 [+0.010, +0.030]",
        "0.320 [0.290, 0.350]",
        "+0.020 [-0.010, +0.050]",
        "32.0 [29.0, 35.0]",
        "0.320 to 0.320",
    ]
    assert "A quick trial" not in text
    assert "A quick trial" in told(result, quick=True)


@pytest.mark.parametrize("synthetic", [False, True])
def test_every_table_has_as_many_cells_in_each_row(synthetic: bool) -> None:
    lines = told(made_up([BETTER, OPEN], [OPEN, OPEN], synthetic=synthetic)).splitlines()
    assert ("ceiling" in "\n".join(lines)) == synthetic
    for line, after in pairwise(lines):
        if line.startswith("|") and after.startswith("|"):
            assert line.count("|") == after.count("|")


def test_the_page_says_whether_recipes_have_what_validation_chooses() -> None:
    assert "The recipes have what validation chooses." in told(made_up([BETTER], [OPEN]))
    differs = told(made_up([OPEN], [BETTER]))
    assert "| `adapter.depth` | [depth](#depth) | `0` | stays, as none was better | `1` | `1` |" in differs
    assert "Not as validation chooses: `adapter.depth` of emoji, `adapter.depth` of emoji-spoken." in differs
    assert "Defaults of the recipes" not in told(made_up([BETTER], [OPEN], setting=None))


def test_the_number_of_differences_is_counted() -> None:
    text = told(made_up([BETTER, OPEN], [OPEN, OPEN]), made_up([OPEN], [OPEN], name="batch"))
    assert "of 3 differences, about 0.2 would" in text


def test_the_committed_page_is_what_the_committed_results_say() -> None:
    results = read_results(BENCHMARKS / "studies" / "results")
    order = [study.name for study in STUDIES]
    assert {result.name for result, _ in results} == set(order)
    assert not any(data["quick"] for _, data in results)
    text = (BENCHMARKS / "FINDINGS.md").read_text()
    assert text == page(sorted(results, key=lambda found: order.index(found[0].name)))
    for picture in re.findall(r"\]\((studies/results/[^)]*)\)", text):
        assert (BENCHMARKS / picture).is_file()


def test_a_quick_trial_runs_and_reports_where_it_is_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["synthetic-missing", "--root", str(tmp_path), "--quick", "--seeds", "1"]
    with pytest.raises(SystemExit, match="lacks 6 of its 6 runs"):
        main(["report", *asked, "--out", str(tmp_path / "out")])
    main(["run", *asked])
    with pytest.raises(SystemExit, match="a quick trial is no result: say with --out"):
        main(["report", *asked])
    main(["report", *asked, "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out.splitlines()[-1] == f"1 study: {tmp_path / 'out/FINDINGS.md'}"
    stored = json.loads((tmp_path / "out/studies/results/synthetic-missing.json").read_text())
    assert (stored["benchmark"], stored["quick"]) == ("studies/synthetic-missing", True)
    assert [level["items"] for level in stored["study"]["levels"]] == [500, 500, 500]
    text = (tmp_path / "out/FINDINGS.md").read_text()
    assert "A quick trial" in text
    assert (tmp_path / "out/studies/results/synthetic-missing.png").is_file()


def test_an_unknown_study_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: unknown study 'mixups': did you mean 'mixup'"):
        main(["run", "mixups", "--root", str(tmp_path)])
