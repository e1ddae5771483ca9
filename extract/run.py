"""The loop of an extraction: blocks are prepared, encoded and committed, one after the other.

Nothing is kept of a block once it is committed, so memory does not grow with the dataset, and a run that ends in
whatever way has lost at most the block in flight.  A row without a latent is first written to the list of failures,
then marked in the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fusemix.errors import FusemixError, Stopped, TooManyFailures
from fusemix.latents.failures import FailedRow, FailureList
from fusemix.latents.file import DONE, FAILED, TO_DO, LatentsFile
from fusemix.latents.writer import FileLock, LatentsWriter
from fusemix.progress import Progress

from .batching import Batcher
from .blocks import Block, Rows, blocks
from .dataset import Dataset
from .settings import ExtractSettings
from .sources import Location
from .workers import Failure, prepare


class ExtractionRun:
    """Encodes the rows of a latents file that are to do.

    Args:
        dataset: the items.
        modality: which of its modalities.
        batcher: the encoder in its precision.
        settings: workers, block size, limits.
        path: the latents file.
        lock: its lock, held by the caller.
    """

    def __init__(
        self,
        dataset: Dataset,
        modality: str,
        batcher: Batcher,
        settings: ExtractSettings,
        path: Path,
        lock: FileLock,
    ) -> None:
        self.dataset, self.modality, self.batcher, self.settings = dataset, modality, batcher, settings
        self.path, self.lock, self.failures = path, lock, FailureList(path)
        file = LatentsFile(path)
        self.rows, self.size = file.rows, path.stat().st_size
        self.status, self.first = file.status, file.shard.first if file.shard else 0
        self.failed = 0

    def run(self, *, retry_failed: bool, where: str) -> int:
        """Encode what is to do and return the number of rows encoded.

        Args:
            retry_failed: also try rows again that failed before.
            where: device and precision, for the user.

        Raises:
            Stopped: on Ctrl-C; TooManyFailures once more rows have failed than may.
            FusemixError: where the encoder, the disk or the workers cannot go on.  Committed rows are kept.
        """
        had_failed = self.status == FAILED
        todo = np.flatnonzero((self.status == TO_DO) | (had_failed & retry_failed))
        self.failed = 0 if retry_failed else int(had_failed.sum())
        # The file's name tells an encoder's settings apart, unless somebody chose another.
        encoder, file = self.batcher.spec.name, self.path.stem
        label = f"extract {self.modality} by {file if file.startswith(encoder) else encoder}"
        try:
            self._check_failures()
            with Progress(self.rows, label, "rows", self.rows - len(todo)) as progress:
                progress.note(
                    f"{label}: {len(todo):,} of {self.rows:,} rows to do, {self.size / 1e6:,.1f} MB on disk, {where}"
                )
                encoded = self._encode_all(todo, progress)
            self.failures.prune(LatentsFile(self.path).status == FAILED)
        except KeyboardInterrupt as error:
            raise Stopped(f"stopped: {self._kept()}; run the same command to go on") from error
        except Stopped:
            raise
        except FusemixError as error:
            raise FusemixError(f"{error}; {self._kept()}, and the same command goes on from there") from error
        return encoded

    def _encode_all(self, todo: Rows, progress: Progress) -> int:
        encoded = 0
        preprocess, are_files = self.batcher.encoder.preprocess, self.dataset[self.modality].are_paths
        with LatentsWriter(self.path, self.lock) as writer:
            for block in blocks(todo, self._source, preprocess, self.settings, are_files=are_files):
                latents, reasons = self._encode(block, progress)
                for place in np.flatnonzero(writer.unstorable(latents)).tolist():
                    reasons.setdefault(place, _why_unstorable(latents[place], writer.dtype))
                self.failures.append(
                    [self._failed_row(block.rows[place], reasons[place]) for place in sorted(reasons)]
                )
                writer.commit(block.rows, latents, np.array([one.content for one in block.prepared], np.uint64))
                encoded += len(block.rows) - len(reasons)
                self.failed += len(reasons)
                self._check_failures()
        return encoded

    def _encode(self, block: Block, progress: Progress) -> tuple[npt.NDArray[np.float32], dict[int, str]]:
        """Return (n, dim) latents of a block, NaN where there is none, and for those rows the reason."""
        reasons = {i: one.value.reason for i, one in enumerate(block.prepared) if isinstance(one.value, Failure)}
        progress.advance(len(reasons), f"{self.failed + len(reasons)} failed")
        good = {i: one.value for i, one in enumerate(block.prepared) if i not in reasons}
        latents = np.full((len(block.rows), self.batcher.spec.dim), np.nan, np.float32)
        refused: dict[int, Exception] = {}
        for places, batch in self.batcher.batches(good, refused):
            latents[places] = batch
            progress.advance(len(places), f"{self.failed + len(reasons) + len(refused)} failed")
        told = {place: f"{type(error).__name__}: {error}" for place, error in refused.items()}
        # One row alone does not tell a broken encoder from a broken row; failed, it can be tried again.
        if len(refused) == len(good) > 1 and not self._still_encodes():
            raise FusemixError(
                f"encoder {self.batcher.spec.name!r} failed on each of {len(good)} rows, first with"
                f" {next(iter(told.values()))}"
            )
        progress.advance(len(refused))
        return latents, reasons | told

    def _still_encodes(self) -> bool:
        """Return whether the encoder encodes a row that it has encoded before: then the others are to blame."""
        done = np.flatnonzero(LatentsFile(self.path).status == DONE)
        if len(done) == 0:
            return False
        value = prepare(self.batcher.encoder.preprocess, self._source(int(done[-1]))).value
        return not isinstance(value, Failure) and any(True for _ in self.batcher.batches({0: value}, {}))

    def _source(self, row: int) -> Location:
        return self.dataset.source(self.modality, self.first + row)

    def _failed_row(self, row: int, reason: str) -> FailedRow:
        sources = self.dataset[self.modality]
        of_dataset = self.first + int(row)
        return FailedRow(int(row), sources.items[of_dataset], sources.values[of_dataset], reason)

    def _check_failures(self) -> None:
        most = self.settings.max_failures
        if most is not None and self.failed > most:
            raise TooManyFailures(
                f"stopped: {self.failed} rows failed, more than extract.max_failures allows ({most}), see"
                f" {self.failures.path}; {self._kept()}; go on with a higher limit, or with --retry_failed once the"
                " cause is mended"
            )

    def _kept(self) -> str:
        return f"{LatentsFile(self.path).done} of {self.rows} rows of {self.path} are done"


def _why_unstorable(latent: npt.NDArray[np.float32], dtype: np.dtype[Any]) -> str:
    if np.isfinite(latent).all():
        return f"latent is beyond the range of {dtype}: extract with extract.dtype float32"
    return "latent is NaN or infinite"
