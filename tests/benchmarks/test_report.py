"""Tables that fit a narrow terminal, and the JSON file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fusemix.benchmarks.bootstrap import Interval
from fusemix.benchmarks.comparison import Comparison, MethodResult
from fusemix.benchmarks.report import SCHEMA_VERSION, comparison_table, retrieval_table, write_json
from fusemix.benchmarks.retrieval import DirectionResult, RetrievalResult

WIDTH = 80
NAMES = ("image to text", "text to image")


def retrieval_result(recall: Interval, reciprocal: Interval, median: Interval) -> RetrievalResult:
    metrics = {"R@1": recall, "R@5": recall, "R@10": recall, "MRR": reciprocal, "MedR": median}
    chance = {"R@1": 0.0002, "R@5": 0.001, "R@10": 0.002}
    forward, backward = (
        DirectionResult(name, queries, gallery, 0.012, chance, metrics)
        for name, queries, gallery in zip(NAMES, (5000, 25010), (25010, 5000), strict=True)
    )
    return RetrievalResult("generic", "coco", "1f", "test", 5000, 1000, (forward, backward), recall)


def method(name: str, result: RetrievalResult, difference: Interval | None) -> MethodResult:
    keys = ("R@1", "R@5", "R@10", "MRR")
    seeds = (0, 1, 2) if difference else ()
    of_seeds = {
        direction.name: {key: [direction.metrics[key].value + 0.01 * seed for seed in seeds or (0,)] for key in keys}
        for direction in result.directions
    }
    differences = {direction: dict.fromkeys(keys, difference) for direction in NAMES} if difference else {}
    return MethodResult(name, result, seeds, of_seeds, differences)


def compared(result: RetrievalResult, difference: Interval) -> Comparison:
    return Comparison(
        (method("fusemix", result, difference), method("no-mixup", result, difference), method("ridge", result, None))
    )


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
    assert "mean recall % 64.3 [63.1, 65.5]" in table
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
    assert "5000 queries, 25010 gallery rows, chance % R@1 0.02, R@5 0.10, R@10 0.20" in table
    assert "25010 queries, 5000 gallery rows" in table


def test_json_has_schema_version_benchmark_context_and_result(tmp_path: Path) -> None:
    path = tmp_path / "results" / "retrieval" / "run.json"
    write_json(path, "retrieval", ORDINARY.to_dict(), {"recipe": "coco", "machine": {"cores": 2}})
    read = json.loads(path.read_text())
    assert list(read)[:4] == ["schema_version", "benchmark", "recipe", "machine"]
    assert (read["schema_version"], read["benchmark"], read["machine"]) == (SCHEMA_VERSION, "retrieval", {"cores": 2})
    assert read["directions"][1]["metrics"]["R@1"] == {"value": 0.643, "low": 0.631, "high": 0.6549}
    assert [direction["trained"] for direction in read["directions"]] == [True, True]
    assert read["mean_recall"]["value"] == 0.643


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, "retrieval", {"items": 1}, {})
    with pytest.raises(TypeError):
        write_json(path, "retrieval", {"items": object()}, {})
    assert json.loads(path.read_text())["items"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]
