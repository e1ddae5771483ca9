from __future__ import annotations

from typing import Any

import pytest

from fusemix.benchmarks.settings import BenchmarkSettings
from fusemix.errors import FusemixError


@pytest.mark.parametrize(
    "given",
    [{"split": "train"}, {"k": ()}, {"k": (5, 0)}, {"draws": 0}, {"seeds": ()}, {"seeds": (1, 1)}],
    ids=str,
)
def test_settings_that_measure_nothing_sound_are_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(FusemixError, match=rf"benchmark\.{next(iter(given))} is "):
        BenchmarkSettings(**given)
