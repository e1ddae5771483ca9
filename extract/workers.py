"""Worker processes that read and decode sources while the encoder runs.

A source that cannot be read gives a `Failure`, never an exception, so one broken file stops nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from fusemix.errors import FusemixError
from fusemix.latents.provenance import content_hash

from .encoder import Source


@dataclass(frozen=True)
class Failure:
    """Why a source could not be prepared."""

    reason: str


@dataclass(frozen=True)
class Prepared:
    """A source ready for its encoder, or the failure, and the hash of its raw content."""

    value: Any
    content: int


def prepare(preprocess: Callable[[Any], Any], source: Source) -> Prepared:
    """Hash and preprocess one source."""
    content = 0
    try:
        content = content_hash(_raw(source))
        return Prepared(preprocess(source), content)
    except FusemixError:
        raise
    except Exception as error:  # whatever a decoder raises, the row has failed and the run goes on
        return Prepared(Failure(f"{type(error).__name__}: {error}"), content)


def _raw(source: Source) -> bytes:
    if isinstance(source, str):
        return source.encode()
    return source if isinstance(source, bytes) else source.read_bytes()


PrepareMany = Callable[[Sequence[Source]], "Future[list[Prepared]]"]


@contextmanager
def preparing(preprocess: Callable[[Any], Any], workers: int) -> Iterator[PrepareMany]:
    """Give a function that prepares sources in the background and returns a future.

    Args:
        preprocess: an encoder's `preprocess`; it is sent to the workers.
        workers: number of processes.
    """
    # Spawned, not forked: the parent has threads and an open HDF5 file that a child must not inherit.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _ignore_interrupts)

    def submit(sources: Sequence[Source]) -> Future[list[Prepared]]:
        return pool.submit(_prepare_all, preprocess, list(sources))

    try:
        yield submit
    except BrokenProcessPool as error:
        raise FusemixError(
            "a worker process died (killed, or out of memory); finished rows are kept: run the same command again,"
            " with fewer --extract.workers if memory was short"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare_all(preprocess: Callable[[Any], Any], sources: Sequence[Source]) -> list[Prepared]:
    return [prepare(preprocess, source) for source in sources]


def _ignore_interrupts() -> None:
    # Ctrl-C goes to the whole process group; the parent decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
