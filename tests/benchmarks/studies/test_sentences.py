from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from fusemix.benchmarks.studies.design import Verdict
from fusemix.benchmarks.studies.sentences import agreement, answer

from .made_up import Bounds, made_up

BETTER, WORSE, OPEN = (0.02, 0.01, 0.03), (-0.02, -0.03, -0.0101), (0.02, -0.01, 0.05)


@pytest.mark.parametrize(
    ("bounds", "sentence"),
    [
        (BETTER, "The 1. level (MRR +0.020 [+0.010, +0.030]) did better than the baseline."),
        (WORSE, "The 1. level (MRR -0.020 [-0.030, -0.010]) did worse than the baseline."),
        (OPEN, "No difference to the baseline was shown for the 1. level (MRR +0.020 [-0.010, +0.050])."),
    ],
)
def test_an_answer_claims_what_the_interval_shows(bounds: Bounds, sentence: str) -> None:
    assert answer(made_up([bounds], [OPEN])) == sentence


def test_a_difference_that_not_every_seed_has_is_none_and_says_why() -> None:
    assert answer(made_up([BETTER], [OPEN], seeds=(0.05, -0.01))) == (
        "No difference to the baseline was shown for the 1. level (MRR +0.020 [+0.010, +0.030], but not with every"
        " seed)."
    )


def test_an_answer_is_one_sentence_about_all_levels() -> None:
    assert answer(made_up([WORSE, OPEN, WORSE, WORSE], [OPEN] * 4)) == (
        "The 1. level (MRR -0.020 [-0.030, -0.010]), the 3. level (-0.020 [-0.030, -0.010]) and the 4. level"
        " (-0.020 [-0.030, -0.010]) did worse than the baseline; no difference to the baseline was shown for the"
        " 2. level (+0.020 [-0.010, +0.050])."
    )


def test_a_study_may_say_it_in_its_own_words() -> None:
    claims: Mapping[Verdict, str] = {"better": "speech helped", "worse": "speech hurt", "open": "speech did nothing"}
    for bounds, words in ((BETTER, "Speech helped"), (WORSE, "Speech hurt"), (OPEN, "Speech did nothing")):
        result = replace(made_up([bounds], [bounds]), claims=claims)
        value, low, high = bounds
        assert answer(result) == f"{words} (MRR {value:+.3f} [{low:+.3f}, {high:+.3f}])."


def test_the_test_split_is_compared_with_what_validation_says() -> None:
    assert agreement(made_up([WORSE, OPEN], [WORSE, OPEN])) == "The test split says the same."
    assert agreement(made_up([WORSE, OPEN], [WORSE, BETTER])) == (
        "On the test split, the 2. level (MRR +0.020 [+0.010, +0.030]) did better than the baseline."
    )
