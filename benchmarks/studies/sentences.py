"""Sentences made from numbers by rule, so that none says more than the numbers do."""

from __future__ import annotations

from collections.abc import Sequence

from fusemix.benchmarks.bootstrap import Interval

from .analysis import Difference, LevelResult, StudyResult
from .design import Verdict


def answer(result: StudyResult) -> str:
    """Return what validation says of every level, in one sentence."""
    return _sentence(result, result.compared, "val")


def agreement(result: StudyResult) -> str:
    """Return whether the test split says the same, and of which levels it says something else."""
    others = [level for level in result.compared if _verdict(level, "test") != _verdict(level, "val")]
    if not others:
        return "The test split says the same."
    sentence = _sentence(result, others, "test")
    return f"On the test split, {sentence[:1].lower()}{sentence[1:]}"


def of_difference(difference: Difference) -> str:
    """Return `+0.012 [+0.004, +0.020]`, and where the seeds disagree, that they do."""
    text = signed(difference.mrr)
    excluded = difference.mrr.low > 0 or difference.mrr.high < 0
    return f"{text}, but not with every seed" if excluded and difference.verdict == "open" else text


def signed(interval: Interval) -> str:
    """Return `+0.012 [+0.004, +0.020]`."""
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def _sentence(result: StudyResult, levels: Sequence[LevelResult], split: str) -> str:
    clauses = []
    for number, level in enumerate(levels):
        claim = result.claims[_verdict(level, split)].format(level=level.phrase, baseline=result.baseline.phrase)
        clauses.append(f"{claim} ({'' if number else 'MRR '}{of_difference(_difference(level, split))})")
    text = "; ".join(clauses)
    return f"{text[:1].upper()}{text[1:]}."


def _verdict(level: LevelResult, split: str) -> Verdict:
    return _difference(level, split).verdict


def _difference(level: LevelResult, split: str) -> Difference:
    difference = level.splits[split].difference
    if difference is None:
        raise ValueError(f"level {level.name!r} is the baseline")
    return difference
