"""One modality's rows as files hold them, read from one latents file or from several side by side.

Each encoder is extracted once; `audio: [htsat, whisper-base]` is decided when latents are loaded.  Rows of two files
belong together where item and content agree, so it does not matter that an encoder failed on some rows, or that one
file is older than the dataset's last rows.  An item that holds the same content more than once has as many rows of
one key: the first is joined with the first, the second with the second.  As their content is equal, so are their
latents, and every other way to pair them would give the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fusemix.errors import FusemixError
from fusemix.latents.file import DONE, LatentsFile
from fusemix.latents.mapped import MappedLatents
from fusemix.latents.provenance import EncoderSpec, concatenated_spec

ROWS_AT_ONCE = 65536

Places = npt.NDArray[np.int64]
Keys = tuple[npt.NDArray[np.object_], npt.NDArray[np.uint64]]
"""Item and content of each of a file's rows."""


@dataclass(frozen=True)
class Columns:
    """The R rows of a modality; `used` are those that count."""

    items: npt.NDArray[np.object_]
    splits: npt.NDArray[np.object_]
    sources: npt.NDArray[np.object_]
    content: npt.NDArray[np.uint64]
    values: npt.NDArray[Any] | MappedLatents
    used: Places
    spec: EncoderSpec | None


def read_columns(files: Sequence[LatentsFile], *, mapped: bool = False) -> Columns:
    """Read the finished rows of a file, or of several files of one modality joined on item and content.

    Joined rows lie in the order of the first file.  Those that a file lacks are left out, with a warning that counts
    them.

    Args:
        files: one file or more, of one dataset; their latents are concatenated in this order.
        mapped: map the latents of a single file instead of reading them.  Concatenated ones lie nowhere as they are
            needed, so they are read all the same.

    Raises:
        FusemixError: where a file has no finished row, two files have no row in common or disagree on a split.
    """
    done = [_finished(file) for file in files]
    first = files[0]
    if len(files) == 1:
        values = MappedLatents(first) if mapped else first.read()
        return Columns(first.items, first.splits, first.sources, first.content, values, done[0], first.spec)
    keys = [(file.items[rows], file.content[rows]) for file, rows in zip(files, done, strict=True)]
    places, left_out = matching_rows(keys)
    rows = [of[place] for of, place in zip(done, places, strict=True)]
    names = ", ".join(str(file.path) for file in files)
    if len(rows[0]) == 0:
        raise FusemixError(f"{names} have no row in common (item and content): extract them from the same files")
    if left_out:
        warnings.warn(
            f"{left_out} of {len(rows[0]) + left_out} {first.spec.modality} rows are left out: not each of {names}"
            " has them finished",
            stacklevel=2,
        )
    _check_splits(files, rows)
    of_first = rows[0]
    return Columns(
        first.items[of_first],
        first.splits[of_first],
        first.sources[of_first],
        first.content[of_first],
        _side_by_side(files, rows),
        np.arange(len(of_first)),
        concatenated_spec([file.spec for file in files]),
    )


def matching_rows(keys: Sequence[Keys]) -> tuple[list[Places], int]:
    """Find the rows that several files have in common.

    Args:
        keys: of each file, the items and contents of its rows.

    Returns:
        For each file the places of the common rows, in the order of the first file; and the number of rows, told
        apart by item, content and count among equals, that some file lacks.
    """
    code: dict[str, int] = {}
    item = np.concatenate(
        [np.fromiter((code.setdefault(i, len(code)) for i in items), np.int64, len(items)) for items, _ in keys]
    )
    content = np.concatenate([hashes for _, hashes in keys])
    sizes = [len(items) for items, _ in keys]
    order = np.lexsort((content, item))  # stable: equal keys stay in the order of files and of their rows
    item, content = item[order], content[order]
    part = np.repeat(np.arange(len(keys)), sizes)[order]
    place = np.concatenate([np.arange(size) for size in sizes])[order]

    new_key = np.ones(len(order), np.bool_)
    new_key[1:] = (item[1:] != item[:-1]) | (content[1:] != content[:-1])
    new_run = new_key.copy()
    new_run[1:] |= part[1:] != part[:-1]
    among_equals = np.arange(len(order)) - np.flatnonzero(new_run)[np.cumsum(new_run) - 1]
    key = np.cumsum(new_key) * (among_equals.max(initial=0) + 1) + among_equals

    _, number, having = np.unique(key, return_inverse=True, return_counts=True)
    table = np.full((len(keys), len(having)), -1)
    table[part, number] = place
    common = table[:, having == len(keys)]
    common = common[:, np.argsort(common[0])]
    return list(common), len(having) - common.shape[1]


def _finished(file: LatentsFile) -> Places:
    done = np.flatnonzero(file.status == DONE)
    if len(done) == 0:
        raise FusemixError(f"{file.path} has no finished row; finish it with: fusemix extract RECIPE")
    return done


def _check_splits(files: Sequence[LatentsFile], rows: Sequence[Places]) -> None:
    first = files[0].splits[rows[0]]
    for file, of in zip(files[1:], rows[1:], strict=True):
        if len(other := np.flatnonzero(file.splits[of] != first)):
            row = other[0]
            raise FusemixError(
                f"item {files[0].items[rows[0][row]]!r} is in the split {first[row]!r} in {files[0].path} and"
                f" {file.splits[of[row]]!r} in {file.path}; an item belongs to one split"
            )


def _side_by_side(files: Sequence[LatentsFile], rows: Sequence[Places]) -> npt.NDArray[Any]:
    dims = [file.dim for file in files]
    values = np.empty((len(rows[0]), sum(dims)), np.result_type(*(file.dtype for file in files)))
    for file, of, end in zip(files, rows, np.cumsum(dims).tolist(), strict=True):
        latents = MappedLatents(file)
        for start in range(0, len(of), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            values[some, end - file.dim : end] = latents.values.numpy()[of[some]]
            latents.release()
    return values
