"""Tables that fit a narrow terminal, and the JSON file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fusemix.benchmarks.bootstrap import Interval
from fusemix.benchmarks.comparison import Comparison, MethodResult
from fusemix.benchmarks.protocols import COCO_1K, GENERIC
from fusemix.benchmarks.report import Report
from fusemix.benchmarks.retrieval_report import comparison_report, retrieval_report
from fusemix.benchmarks.retrieval_result import DirectionResult, RetrievalResult

WIDTH = 80
NAMES = ("image to text", "text to image")


def retrieval_result(recall: Interval, reciprocal: Interval, median: Interval) -> RetrievalResult:
    recalls = dict.fromkeys(("R@1", "R@5", "R@10", "recall@1", "recall@5", "recall@10"), recall)
    metrics = {**recalls, "MRR": reciprocal, "mAP@10": recall, "MedR": median, "MeanR": median}
    chance = {"R@1": 0.0002, "R@5": 0.001, "R@10": 0.002}
    forward, backward = (
        DirectionResult(name, queries, gallery, 0.012, chance, metrics)
        for name, queries, gallery in zip(NAMES, (5000, 25010), (25010, 5000), strict=True)
    )
    rsum = Interval(600 * recall.value, 600 * recall.low, 600 * recall.high)
    rows = {"image": 5000, "text": 25010}
    return RetrievalResult(
        GENERIC.at((1, 5, 10)), "coco", "1f", "test", 5000, rows, 1000, (forward, backward), recall, rsum
    )


def retrieval_table(result: RetrievalResult) -> str:
    return retrieval_report(result).text()


def comparison_table(comparison: Comparison) -> str:
    return comparison_report(comparison).text()


def method(name: str, result: RetrievalResult, difference: Interval | None) -> MethodResult:
    keys = ("R@1", "R@5", "R@10", "MRR")
    seeds = (0, 1, 2) if difference else ()
    of_seeds = {
        direction.name: {key: [direction.metrics[key].value + 0.01 * seed for seed in seeds or (0,)] for key in keys}
        for direction in result.directions
    }
    differences = {direction: dict.fromkeys(keys, difference) for direction in NAMES} if difference else {}
    return MethodResult(name, result, seeds, of_seeds, differences)


def compared(result: RetrievalResult, difference: Interval, refit: bool = False) -> Comparison:
    trained = (method(name, result, difference) for name in ("fusemix", "no-mixup"))
    return Comparison((*trained, method("ridge", result, None)), refit)


ORDINARY = retrieval_result(Interval(0.643, 0.631, 0.6549), Interval(0.7514, 0.74, 0.76), Interval(1, 1, 2.5))
WIDEST = retrieval_result(Interval(1, 1, 1), Interval(1, 1, 1), Interval(25010, 25010, 25010))


def cells(table: str, label: str) -> list[list[str]]:
    """The cells of each line that starts with the label."""
    lines = [line.split("  ") for line in table.splitlines() if line.startswith(f"{label}  ")]
    return [[cell.strip() for cell in line[1:] if cell] for line in lines]


@pytest.mark.parametrize("result", [ORDINARY, WIDEST], ids=["ordinary", "widest"])
@pytest.mark.parametrize("difference", [Interval(-0.1, -0.2, 0.1), Interval(-1, -1, -1)], ids=["small", "large"])
def test_tables_fit_80_columns(result: RetrievalResult, difference: Interval) -> None:
    for table in (retrieval_table(result), comparison_table(compared(result, difference))):
        assert max(map(len, table.splitlines())) <= WIDTH
        assert not any(line.endswith(" ") for line in table.splitlines())


def test_the_retrieval_table_tells_all_of_a_result() -> None:
    table = retrieval_table(ORDINARY)
    assert table.splitlines()[0] == "Retrieval on coco, test split: 5000 items, protocol generic"
    assert table.splitlines()[2].split() == ["image", "to", "text", "text", "to", "image"]
    assert cells(table, "queries") == [["5000", "25010"]]
    assert cells(table, "gallery rows") == [["25010", "5000"]]
    assert cells(table, "R@1 %") == [["64.3 [63.1, 65.5]"] * 2]
    assert cells(table, "MRR") == [["0.751 [0.740, 0.760]"] * 2]
    assert cells(table, "MedR") == [["1.0 [1.0, 2.5]"] * 2]
    assert cells(table, "chance R@10 %") == [["0.20"] * 2]
    assert cells(table, "tie rate %") == [["1.2"] * 2]
    assert "mean recall % 64.3 [63.1, 65.5], rsum 385.8 [378.6, 392.9]" in table
    assert "R@k is hit@k" in table
    assert "95% intervals by bootstrap over items" in table


def test_the_retrieval_table_has_a_block_for_each_pair_and_names_the_emergent() -> None:
    alone = ORDINARY.directions
    emergent = tuple(replace(one, name=one.name.replace("text", "sound"), trained=False) for one in alone)
    table = retrieval_table(replace(ORDINARY, directions=(*alone, *emergent)))
    assert max(map(len, table.splitlines())) <= WIDTH
    assert cells(table, "emergent") == [["image to sound", "sound to image"]]
    for label in ("queries", "gallery rows", "R@1 %", "MRR", "MedR", "chance R@1 %", "tie rate %"):
        assert len(cells(table, label)) == 2
    assert "mean recall of what was trained % 64.3 [63.1, 65.5]" in table
    assert "emergent: between modalities that no edge aligned." in table
    assert "emergent" not in retrieval_table(ORDINARY)
    only = retrieval_table(replace(ORDINARY, directions=emergent))
    assert "mean recall % 64.3 [63.1, 65.5]" in only


def test_the_comparison_table_has_a_block_for_each_direction() -> None:
    table = comparison_table(compared(ORDINARY, Interval(0.012, -0.003, 0.03)))
    assert table.splitlines()[0] == "Retrieval on coco, test split: 5000 items, protocol generic"
    assert "mean of seeds 0, 1, 2" in table.splitlines()[1]
    for name in NAMES:
        assert cells(table, name) == [["fusemix", "no-mixup", "ridge"]]
    assert cells(table, "minus ridge") == [["fusemix", "no-mixup"]] * 2
    assert cells(table, "R@1 %") == [["64.3 [63.1, 65.5]"] * 3, ["+1.2 [-0.3, +3.0]"] * 2] * 2
    assert cells(table, "R@1 %, seeds") == [["64.3 to 66.3"] * 2] * 2
    assert cells(table, "MRR") == [["0.751 [0.740, 0.760]"] * 3, ["+0.012 [-0.003, +0.030]"] * 2] * 2
    assert cells(table, "queries") == [["5000", "25010"]]
    assert cells(table, "gallery rows") == [["25010", "5000"]]
    assert cells(table, "chance R@5 %") == [["0.10", "0.10"]]


def test_true_recall_is_told_apart_where_a_query_has_several_right_answers() -> None:
    assert "recall@" not in retrieval_table(ORDINARY)
    several = tuple(replace(one, several=True) for one in ORDINARY.directions)
    table = retrieval_table(replace(ORDINARY, directions=several))
    assert cells(table, "recall@1 %") == [["64.3 [63.1, 65.5]"] * 2]
    assert "recall@k is true recall" in table


def test_what_was_left_out_or_stands_twice_is_told() -> None:
    table = retrieval_table(ORDINARY)
    assert "left out" not in table
    assert "repeated" not in table
    some = tuple(replace(one, left_out=3, repeated=12) for one in ORDINARY.directions)
    table = retrieval_table(replace(ORDINARY, directions=some))
    assert cells(table, "left out, no right answer") == [["3", "3"]]
    assert cells(table, "repeated gallery rows") == [["12", "12"]]


def test_warnings_folds_and_the_convention_of_medians_are_told() -> None:
    result = replace(ORDINARY, protocol=COCO_1K, warnings=tuple(COCO_1K.warnings(4999, 24990)))
    table = retrieval_table(result)
    assert max(map(len, table.splitlines())) <= WIDTH
    assert "protocol coco-1k, mean of 5 folds" in table.splitlines()[0]
    assert table.splitlines()[1].startswith("warning: 4,999 items and 24,990 captions are not what the protocol")
    assert "MedR is the whole part of the median" in table
    assert "MedR is" not in retrieval_table(ORDINARY)


def test_the_same_goes_into_markdown() -> None:
    text = retrieval_report(ORDINARY).markdown()
    lines = text.splitlines()
    assert "|  | image to text | text to image |" in lines
    assert "|---|---:|---:|" in lines
    assert "| R@1 % | 64.3 [63.1, 65.5] | 64.3 [63.1, 65.5] |" in lines
    assert lines[0].startswith("Retrieval on coco, test split: 5000 items")
    compared_lines = comparison_report(compared(ORDINARY, Interval(0.01, 0, 0.02))).markdown().splitlines()
    assert "| image to text | fusemix | no-mixup | ridge |" in compared_lines
    assert not any(set(line) <= set("| ") for line in compared_lines if line), "no empty row"


@pytest.mark.parametrize("refit", [True, False])
def test_a_comparison_says_what_its_methods_learned_from(refit: bool) -> None:
    told = " ".join(comparison_table(compared(ORDINARY, Interval(0, -1, 1), refit)).split())
    assert ("learned anew from the items of train and val together" in told) == refit


def test_a_name_is_not_cut_where_it_has_a_hyphen_or_is_wider_than_the_terminal() -> None:
    names = ["runs/emoji-with-many-words-in-its-name-" + "x" * 20, "y" * 100]
    told = Report([f"The runs that are compared here, {names[0]} and {names[1]}, are fine."], [], []).text()
    assert all(name in told for name in names)
