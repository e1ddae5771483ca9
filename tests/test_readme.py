from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FusedEmoji

README = Path(__file__).parents[1] / "README.md"


def test_the_python_of_the_readme_runs(fused_emoji: FusedEmoji, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    monkeypatch.chdir(fused_emoji.root)
    names: dict[str, Any] = {"__name__": "readme"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"README.md, python block {number}", "exec"), names)
