from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pytest
import torch

NOBODY = 65534


class LockedFolder(Protocol):
    """Makes a folder read-only for the length of a block."""

    def __call__(self, folder: Path) -> AbstractContextManager[None]: ...


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    # Tensors this small are slower on several threads, and far slower where other processes want the cores.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def locked() -> LockedFolder:
    @contextmanager
    def lock(folder: Path) -> Iterator[None]:
        # Permissions do not bind root, so root becomes somebody whom they do.
        me = os.geteuid()
        folder.chmod(0o555)
        if me == 0:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(me)
            folder.chmod(0o755)

    return lock


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a disk of 4 MB, or skip where none can be mounted."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tiny disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
