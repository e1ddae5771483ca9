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
    """Return a clause for each verdict, with the levels that it was given to."""
    clauses: list[str] = []
    for verdict in dict.fromkeys(_verdict(level, split) for level in levels):
        given = [level for level in levels if _verdict(level, split) == verdict]
        figures = [f"({of_difference(_difference(level, split))})" for level in given]
        if not clauses:
            figures[0] = f"(MRR {figures[0][1:]}"
        claim = result.claims[verdict]
        if "{level}" in claim:
            named = [f"{level.phrase} {figure}" for level, figure in zip(given, figures, strict=True)]
            clauses.append(claim.format(level=_listed(named), baseline=result.baseline.phrase))
        else:
            clauses.append(f"{claim} {_listed(figures)}")
    text = "; ".join(clauses)
    return f"{text[:1].upper()}{text[1:]}."


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _verdict(level: LevelResult, split: str) -> Verdict:
    return _difference(level, split).verdict


def _difference(level: LevelResult, split: str) -> Difference:
    difference = level.splits[split].difference
    if difference is None:
        raise ValueError(f"level {level.name!r} is the baseline")
    return difference
