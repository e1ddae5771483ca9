"""Files that are either whole or not there: written under a temporary name, fsynced and renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fusemix.errors import FusemixError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds, fsync it and rename it over `path`.

    A reader sees the old file or the new one, never a part; a failing block leaves the old file alone.

    Raises:
        FusemixError: where the folder cannot be written or the disk is full.
    """
    with explaining_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
        except BaseException:
            with suppress(FileNotFoundError):
                temporary.unlink()
            raise


def fsync(path: Path) -> None:
    """Flush a file or a folder to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reserve(path: Path, size: int) -> None:
    """Give the file `size` bytes on disk now, so that no later write can find the disk full.

    Raises:
        FusemixError: where the disk has no room; says how much is needed and how much is free.
    """
    free = os.statvfs(path.parent)
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise FusemixError(
            f"no room in {path.parent} for a new file: it needs {size / 1e9:.2f} GB and"
            f" {free.f_bavail * free.f_frsize / 1e9:.2f} GB are free; free some space or choose another folder with"
            " --root"
        ) from error
    finally:
        os.close(descriptor)


@contextmanager
def explaining_os_errors(path: Path) -> Iterator[None]:
    """Turn a refused or failed write into a FusemixError that names `path` and the remedy."""
    try:
        yield
    except OSError as error:
        remedies = {
            errno.ENOSPC: "free some space and run the same command again",
            errno.EDQUOT: "free some of your quota and run the same command again",
            errno.EACCES: "choose a folder that you may write to with --root",
            errno.EPERM: "choose a folder that you may write to with --root",
            errno.EROFS: "choose a folder on a writable disk with --root",
            errno.ENOTDIR: "a file stands where a folder is needed; move it away",
        }
        if error.errno not in remedies:
            raise
        raise FusemixError(f"cannot write {path}: {os.strerror(error.errno)}; {remedies[error.errno]}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
