from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from filelock import FileLock

# Threads that spin while they wait starve each other where cores are few; read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A shell's background job ignores Ctrl-C, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

COMMAND = Path(sys.executable).with_name("fusemix")
# The pictures at one of the recipe's sides, which takes a third of the time.
ONE_SIDE = ("--encoders.image", "efficientnet-lite0")
SHORT_TRAINING = (
    *ONE_SIDE,
    *("--fuse.steps", "20", "--fuse.warmup_steps", "5", "--fuse.adapter.depth", "0", "--fuse.refit", "false"),
)


class RunCommand(Protocol):
    """Runs `fusemix` with arguments in a process of its own."""

    def __call__(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]: ...


@dataclass(frozen=True)
class FusedEmoji:
    """What `fusemix fuse emoji` left behind."""

    root: Path
    output: str

    @property
    def run(self) -> Path:
        return self.root / "runs" / "emoji"


@pytest.fixture(scope="session")
def command() -> RunCommand:
    def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, check=False)

    return run


@pytest.fixture(scope="session")
def fused_emoji(tmp_path_factory: pytest.TempPathFactory, command: RunCommand) -> FusedEmoji:
    """Extract and fuse the emoji recipe once, for all processes that run tests side by side."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "emoji"
    output = root / "output.txt"
    with FileLock(root.with_suffix(".lock")):
        if not output.is_file():
            done = command("fuse", "emoji", "--root", root, *SHORT_TRAINING)
            assert done.returncode == 0, done.stderr
            output.write_text(done.stdout)
    return FusedEmoji(root, output.read_text())
