from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from fusemix.errors import FusemixError
from fusemix.latents.file import LatentsFile
from fusemix.latents.mapped import MappedLatents
from fusemix.latents.paired import PairedLatents
from fusemix.training.statistics import standardisation
from tests.fusemix.synthetic import encoder


def store(path: Path, rows: int = 6, dim: int = 4, seed: int = 0) -> LatentsFile:
    latents = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    items = [f"{row:06d}" for row in range(rows)]
    return LatentsFile.from_arrays(path, items, latents, encoder("image", dim))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_mapped_latents_are_those_of_the_file(tmp_path: Path, dtype: str) -> None:
    latents = np.arange(6.0).reshape(3, 2)
    file = LatentsFile.from_arrays(tmp_path / "i.h5", list("abc"), latents, encoder("image", 2), dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mapped = MappedLatents(file)
    assert mapped.values.dtype == getattr(torch, dtype)
    assert mapped.values.tolist() == latents.tolist()
    mapped.release()
    mapped.expect_scattered_rows()
    assert mapped.values[[2, 0]].tolist() == latents[[2, 0]].tolist()


def test_a_file_without_rows_can_be_mapped(tmp_path: Path) -> None:
    assert MappedLatents(store(tmp_path / "i.h5", rows=0)).values.shape == (0, 4)


def test_a_file_that_was_cut_short_is_refused_when_it_is_mapped_and_later(tmp_path: Path) -> None:
    file = store(tmp_path / "i.h5")
    mapped = MappedLatents(file)
    mapped.check()
    os.truncate(file.path, file.offset + 6 * 4 * 2 - 1)
    with pytest.raises(FusemixError, match=r"i\.h5 has been cut short while it was in use: it has \d+ bytes"):
        mapped.check()
    with pytest.raises(FusemixError, match=r"i\.h5 has been cut short"):
        MappedLatents(file)


def test_a_file_that_is_replaced_leaves_what_was_mapped(tmp_path: Path) -> None:
    file = store(tmp_path / "i.h5")
    mapped, before = MappedLatents(file), file.read()
    assert not np.array_equal(store(tmp_path / "i.h5", seed=1).read(), before)
    mapped.release()
    mapped.check()
    assert np.array_equal(mapped.values.numpy(), before)
    file.path.unlink()
    mapped.release()
    mapped.check()
    assert np.array_equal(mapped.values.numpy(), before)


def resident(path: Path) -> int:
    """Return the bytes of a mapped file that are in this process's memory."""
    size, of_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            of_file = line.endswith(str(path))
        elif of_file and line.startswith("Rss:"):
            size += 1024 * int(line.split()[1])
    return size


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory is read from /proc")
def test_reading_a_mapped_file_through_keeps_nothing_of_it_in_memory(tmp_path: Path) -> None:
    path = store(tmp_path / "i.h5", rows=1000, dim=16_000).path
    modality = PairedLatents.load({"image": path}, mapped=True)["image"]
    assert resident(path) == 0
    standardisation([modality])
    assert resident(path) == 0
    for _ in modality.in_chunks(elements=2_000_000):
        # More than the chunk of 4 MB, since the system maps pages of megabytes where it has them.
        assert 0 < resident(path) < 16_000_000
    assert resident(path) == 0
    modality.values.sum()
    assert resident(path) > 31_900_000
    assert modality.mapped is not None
    modality.mapped.release()
    assert resident(path) == 0
