"""Extractions that are killed at random moments, again and again."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from fusemix.extract import ExtractSettings, extract
from fusemix.extract.extraction import latents_path
from fusemix.latents.file import DONE, TO_DO, LatentsFile
from tests.extract.colours import Colours, coloured, expected_latents, row_of

BLOCK = 8


class Logging(Colours):
    """Writes down each row before it is encoded, and takes its time."""

    def __init__(self, modality: str, log: Path, pause: float) -> None:
        super().__init__(modality)
        self.log, self.pause = log, pause

    def encode(self, batch: Tensor) -> Tensor:
        with self.log.open("a") as file:
            file.write("".join(f"{row_of(pixel)}\n" for pixel in batch.numpy()))
        time.sleep(self.pause)
        return super().encode(batch)


def extract_slowly(modality: str, folder: Path, rows: int, pause: float) -> None:
    encoder = Logging(modality, folder / "encoded.log", pause)
    extract(coloured(folder, rows), modality, encoder, ExtractSettings(block_rows=BLOCK), root=folder)


def rows_encoded(folder: Path) -> int:
    log = folder / "encoded.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def rows_done_and_right(path: Path, rows: int) -> int:
    """Count the finished rows, and check each of them."""
    if not path.exists():
        return 0
    file = LatentsFile(path)
    done = file.status == DONE
    assert np.array_equal(file.read()[done], expected_latents(rows)[done])
    assert file.content[done].all()
    assert file.damaged_rows() == []
    assert (file.status[~done] == TO_DO).all()
    return int(done.sum())


@pytest.mark.parametrize(
    ("modality", "rows", "pause", "first_moment", "kills_at_least"),
    [("text", 400, 0.002, 0.1, 5), ("image", 32, 0.03, 0.5, 1)],
)
def test_a_killed_extraction_loses_at_most_the_block_in_flight(
    tmp_path: Path, modality: str, rows: int, pause: float, first_moment: float, kills_at_least: int
) -> None:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    coloured(tmp_path, rows)
    path, moments = latents_path(tmp_path, "coloured", modality, "colours"), random.Random(0)
    kills, done, encoded = 0, 0, 0
    while done < rows:
        process = server.Process(target=extract_slowly, args=(modality, tmp_path, rows, pause))
        process.start()
        # Later moments each time, so that a slow machine comes to the end too.
        process.join(moments.uniform(0, first_moment * (1 + kills / 4)))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
        else:
            assert process.exitcode == 0
        process.close()
        done_before, encoded_before = done, encoded
        done, encoded = rows_done_and_right(path, rows), rows_encoded(tmp_path)
        assert encoded - encoded_before <= done - done_before + BLOCK
    assert kills >= kills_at_least
    log = Counter(map(int, (tmp_path / "encoded.log").read_text().split()))
    assert set(log) == set(range(rows))
