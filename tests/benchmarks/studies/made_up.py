"""Results with the differences that a test wants."""

from __future__ import annotations

from collections.abc import Sequence

from fusemix.benchmarks.bootstrap import Interval
from fusemix.benchmarks.studies.analysis import Difference, LevelResult, OnSplit, StudyResult
from fusemix.benchmarks.studies.design import CLAIMS

Bounds = tuple[float, float, float]
BASE = 0.3
MACHINE = {"cores": 2, "processor": "a processor", "gpu": None, "torch": "2", "python": "3", "fusemix": "0"}


def on_split(bounds: Bounds | None, seeds: Sequence[float] | None = None) -> OnSplit:
    value, low, high = bounds or (0.0, -0.05, 0.05)
    interval = Interval(BASE + value, BASE + low, BASE + high)
    of_seeds = tuple(seeds) if seeds is not None else (value, value)
    difference = Difference(Interval(value, low, high), Interval(value, low, high), of_seeds) if bounds else None
    return OnSplit(interval, interval, tuple(BASE + seed for seed in of_seeds), difference)


def made_up(
    val: Sequence[Bounds],
    test: Sequence[Bounds],
    *,
    seeds: Sequence[float] | None = None,
    name: str = "depth",
    setting: str | None = "adapter.depth",
    synthetic: bool = False,
) -> StudyResult:
    """Return a result whose baseline stands first and whose other levels have the given differences."""
    levels = [LevelResult("base", "the baseline", {"val": on_split(None), "test": on_split(None)}, 0, 100, 50, 1.0)]
    for number, (of_val, of_test) in enumerate(zip(val, test, strict=True), 1):
        splits = {"val": on_split(of_val, seeds), "test": on_split(of_test)}
        levels.append(LevelResult(f"level {number}", f"the {number}. level", splits, number, 100, 50, 1.0))
    splits = {"val": on_split(None), "test": on_split(None)}
    references = (LevelResult("ceiling", "ceiling", splits, shared=0.96, private=0.0),) if synthetic else ()
    return StudyResult(
        name,
        "How many blocks?",
        "all else",
        "emoji",
        {"val": 30, "test": 40},
        ("image", "text"),
        2,
        setting,
        0,
        CLAIMS,
        tuple(levels),
        references,
        (MACHINE,),
    )
