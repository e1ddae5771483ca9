"""The latents of a file in the address space of the process, read by the operating system when they are touched.

The mapping is shared and read-only, not a private copy: of a private mapping Linux refuses what is larger than the
machine's memory, which is just what is mapped.  A process that touches pages behind the end of a file that was cut
short meanwhile dies (SIGBUS) without a word, so the size is looked at before rows are read.
"""

from __future__ import annotations

import mmap
import warnings

import numpy as np
import torch

from fusemix.errors import FusemixError
from fusemix.latents.file import LatentsFile


class MappedLatents:
    """The latents of a file, mapped.

    Args:
        file: the latents file; one that replaces it later (extraction replaces whole files) changes nothing here.

    Attributes:
        values: (N, D) latents, rows that are not done as they lie there (zeros).  They must not be written to.

    Raises:
        FusemixError: where the file has been cut short.
    """

    def __init__(self, file: LatentsFile) -> None:
        self.path = file.path
        self._end = file.offset + file.rows * file.dim * file.dtype.itemsize
        with file.path.open("rb") as opened:
            self._pages = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
        self.check()
        values = np.frombuffer(self._pages, file.dtype, file.rows * file.dim, file.offset)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            self.values = torch.from_numpy(values.reshape(file.rows, file.dim))

    def check(self) -> None:
        """See to it that the file still has all its latents.

        Raises:
            FusemixError: where it has been cut short.
        """
        size = self._pages.size()
        if size < self._end:
            raise FusemixError(
                f"{self.path} has been cut short while it was in use: it has {size} bytes, its latents end at"
                f" {self._end}; restore it and run the same command again"
            )

    def release(self) -> None:
        """Let go of the memory of the pages that were read; touched again, they are read again."""
        self._pages.madvise(mmap.MADV_DONTNEED)

    def expect_scattered_rows(self) -> None:
        """Have the system read the pages that are touched and not those after them, from now on."""
        self._pages.madvise(mmap.MADV_RANDOM)
