from __future__ import annotations

import subprocess
import sys

import pytest

from fusemix.benchmarks.bakeoff.settings import METHODS, BakeoffSettings
from fusemix.errors import FusemixError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ("ridge", "proscrutes")}, "unknown method 'proscrutes': did you mean 'procrustes'?"),
        ({"methods": ("",)}, "unknown method '': choose one of asif, cca, fusemix, lit-style, procrustes, ridge, "),
        ({"methods": ()}, "--methods : it must be different names, one or more"),
        ({"methods": ("cca", "cca")}, "--methods cca,cca: it must be different names, one or more"),
        ({"fractions": (0.0, 1.0)}, "--fractions 0.0,1.0: it must be different numbers above 0, up to 1"),
        ({"fractions": (0.1, 1.5)}, "--fractions 0.1,1.5: it must be"),
        ({"fractions": (-0.1,)}, "--fractions -0.1: it must be"),
        ({"fractions": (float("nan"),)}, "--fractions nan: it must be"),
        ({"fractions": (0.5, 0.5)}, "--fractions 0.5,0.5: it must be"),
        ({"fractions": ()}, "--fractions : it must be"),
        ({"seeds": 0}, "--seeds 0: it must be at least 1"),
        ({"budget": 0}, "--budget 0: it must be 1 to 4 configurations"),
        ({"budget": 5}, "--budget 5: it must be 1 to 4 configurations"),
    ],
)
def test_what_cannot_be_baked_is_refused_by_name(given: dict[str, object], said: str) -> None:
    with pytest.raises(FusemixError) as refused:
        BakeoffSettings(**given)  # type: ignore[arg-type]
    assert str(refused.value).startswith(said)


def test_all_methods_take_part_unless_told_otherwise() -> None:
    assert BakeoffSettings().methods == METHODS
    assert len(set(METHODS)) == 8


def test_settings_are_read_without_torch() -> None:
    script = "import sys; import fusemix.benchmarks.bakeoff.settings; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
