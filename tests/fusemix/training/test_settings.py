from __future__ import annotations

import pytest

from fusemix.errors import FusemixError
from fusemix.training.settings import FuseSettings


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [
        ("steps", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("mixup_alpha", -0.1, "at least 0"),
        ("joint_dim", 0, "at least 1"),
        ("learning_rate", 0.0, "above 0"),
        ("final_learning_rate", -1e-6, "at least 0"),
        ("warmup_steps", -1, "at least 0"),
        ("weight_decay", -0.1, "at least 0"),
        ("temperature", 0.0005, r"in \[0\.001, 0\.5\]"),
        ("temperature", float("nan"), r"in \[0\.001, 0\.5\]"),
        ("validate_every", 0, "at least 1"),
        ("patience", 0, "at least 1"),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(name: str, value: float, bounds: str) -> None:
    with pytest.raises(FusemixError, match=rf"fuse\.{name} is {value}: it must be {bounds}"):
        FuseSettings(**{name: value})  # type: ignore[arg-type]
