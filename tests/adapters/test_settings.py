from __future__ import annotations

import subprocess
import sys

import pytest

from fusemix.adapters import AdapterSettings, build_adapter
from fusemix.errors import FusemixError


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [
        ("depth", -1, "at least 0"),
        ("expansion", 0, "at least 1"),
        ("dropout", 1.0, r"in \[0, 1\)"),
        ("dropout", float("nan"), r"in \[0, 1\)"),
        ("noise", -0.1, "finite and at least 0"),
        ("noise", float("inf"), "finite and at least 0"),
        ("max_width", 0, "at least 1"),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(name: str, value: float, bounds: str) -> None:
    with pytest.raises(FusemixError, match=rf"adapter setting {name} is {value}: it must be {bounds}"):
        AdapterSettings(**{name: value})  # type: ignore[arg-type]


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(FusemixError, match="unknown adapter kind 'identiy': did you mean 'identity'"):
        AdapterSettings(kind="identiy")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("linear", "depth", 0),
        ("linear", "expansion", 2),
        ("linear", "dropout", 0.0),
        ("linear", "max_width", 8),
        ("identity", "depth", 2),
        ("identity", "expansion", 1),
        ("identity", "dropout", 0.1),
        ("identity", "noise", 0.1),
        ("identity", "max_width", 8),
    ],
)
def test_a_setting_that_the_kind_has_no_use_for_is_refused(kind: str, name: str, value: float) -> None:
    message = f"adapter setting {name} is {value}, but an adapter of kind {kind} has no use for it: leave it out"
    with pytest.raises(FusemixError, match=message):
        AdapterSettings(kind=kind, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        AdapterSettings(),
        AdapterSettings(depth=2, expansion=3, dropout=0.1, noise=0.2),
        AdapterSettings(kind="gated", depth=3, expansion=1, dropout=0.0, noise=0.2),
        AdapterSettings(max_width=4),
        AdapterSettings(kind="linear"),
        AdapterSettings(kind="linear", noise=0.2),
        AdapterSettings(kind="identity"),
    ],
)
def test_an_adapter_is_built_as_its_settings_say(settings: AdapterSettings) -> None:
    config = settings.config(6, 6)
    adapter = build_adapter(config)
    assert adapter.config() == config
    for name in config.keys() & {"depth", "expansion", "dropout", "noise", "max_width"}:
        assert getattr(adapter, name) == getattr(settings, name)


def test_settings_are_read_without_torch() -> None:
    script = (
        "import sys; from fusemix.adapters import AdapterSettings; AdapterSettings(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
