"""Committing rows to a latents file so that a kill at any moment leaves no wrong row.

Order of a commit: the latents reach the disk, then checksum, content and status do.  A row is either done and
right, or it is still to do.  A lock file of our own names the process that writes, which HDF5's lock does not;
it is held through the operating system, so a dead process leaves none behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from fusemix.errors import FusemixError
from fusemix.files import explaining_os_errors
from fusemix.latents.file import DONE, FAILED


class FileLock:
    """An exclusive lock `<file>.lock` that names its holder.

    Raises:
        FusemixError: where another process holds it; the message names that process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")

    def __enter__(self) -> Self:
        with explaining_os_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 4096, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise FusemixError(
                f"{self.path.with_suffix('')} is being written by another run ({holder or 'just starting'});"
                " wait for it or stop it"
            ) from None
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = json.dumps({"process": os.getpid(), "host": socket.gethostname(), "started": started})
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, holder.encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


class LatentsWriter:
    """A latents file opened for committing rows; use it as a context manager.

    Args:
        path: a file that `LatentsFile.create` made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path)

    def __enter__(self) -> Self:
        self._lock.__enter__()
        try:
            with explaining_os_errors(self.path):
                self._file = h5py.File(self.path, "r+", locking=False)
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        finally:
            self._lock.__exit__(kind, error, trace)

    def commit(
        self, rows: npt.NDArray[np.int64], latents: npt.NDArray[Any], content: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.bool_]:
        """Store latents and mark their rows done, or failed where a latent is not finite once stored.

        Args:
            rows: (n,) increasing row numbers.
            latents: (n, D) latents; a row of NaN is one that could not be encoded.
            content: (n,) hashes of the raw inputs.

        Returns:
            (n,) bool, true where the row failed: NaN, infinite, or beyond the range of the stored type.

        Raises:
            ValueError: where shapes disagree or the rows do not increase.
        """
        target = self._file["latents"]
        # HDF5 would stretch a single latent, or one number of each, over the rows without a word.
        if latents.shape != (len(rows), target.shape[1]) or content.shape != rows.shape or (np.diff(rows) < 1).any():
            raise ValueError(
                f"{self.path}: latents of shape {latents.shape} and {len(content)} hashes are not {len(rows)} rows"
                f" in increasing order of dimension {target.shape[1]}"
            )
        if len(rows) == 0:
            return np.zeros(0, np.bool_)
        with np.errstate(over="ignore", invalid="ignore"):
            stored = latents.astype(target.dtype)
        failed: npt.NDArray[np.bool_] = ~np.isfinite(stored).all(axis=1)
        stored[failed] = 0
        status = np.where(failed, FAILED, DONE).astype(np.uint8)
        checksum = np.array([zlib.crc32(row.tobytes()) for row in stored], np.uint32)
        self._write(rows, latents=stored)
        self._write(rows, checksum=checksum, content=content)
        self._write(rows, status=status)
        return failed

    def _write(self, rows: npt.NDArray[np.int64], **columns: npt.NDArray[Any]) -> None:
        contiguous = rows[-1] - rows[0] + 1 == len(rows)
        selection = slice(int(rows[0]), int(rows[-1]) + 1) if contiguous else rows
        for name, values in columns.items():
            self._file[name][selection] = values
        self._file.flush()
        os.fsync(self._file.id.get_vfd_handle())
