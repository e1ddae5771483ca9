"""Results on disk: one JSON file each, and beside that of a retrieval benchmark the figures of every query.

The JSON is what people read and papers quote.  Comparing two runs takes more: the same query under both.  That would
make the JSON of 25,000 queries unreadable, so it lies in a compressed `.npz` of the same name, which the JSON names
with its SHA-256.  RESULTS-SCHEMA.md beside this file says what every field is.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from fusemix.errors import FusemixError, first_line
from fusemix.files import replacing
from fusemix.latents.paired import PairedLatents

from .bootstrap import Floats
from .retrieval import Measured

SCHEMA_VERSION = 2
_ARRAYS = ("ranks", "better", "tied", "items", "folds")


@dataclass(frozen=True)
class StoredDirection:
    """The queries of one direction, as a comparison needs them.

    Attributes:
        sources: (M,) caption or path of each query.
        metrics: metric -> (M,) value of each query.
        ranks: (M,) mid-rank of the best right answer among the wrong ones.
        items: (M,) position of each query's item in the split.
        folds: (M,) gallery that it was ranked in.
        gallery: number of rows that were ranked.
    """

    sources: tuple[str, ...]
    metrics: dict[str, Floats]
    ranks: Floats
    items: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]
    gallery: int


@dataclass(frozen=True)
class StoredRun:
    """A retrieval result read back, with the figures of each query."""

    name: str
    record: Mapping[str, Any]
    """The JSON."""
    items: tuple[str, ...]
    """Ids of the split's items."""
    directions: Mapping[str, StoredDirection]


def write_json(path: Path, benchmark: str, result: Mapping[str, object], context: Mapping[str, object]) -> None:
    """Write a result with its schema version and what it was obtained with.

    Args:
        path: `results/<benchmark>/<run>.json`.
        benchmark: name of the benchmark.
        result: what was measured.
        context: recipe, versions, machine.
    """
    record = {"schema_version": SCHEMA_VERSION, "benchmark": benchmark, **context, **result}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a result.

    Raises:
        FusemixError: where there is none, or one of another schema.
    """
    try:
        record = json.loads(path.read_text())
        version = int(record["schema_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FusemixError(f"{path} is no result of fusemix ({first_line(error)})") from error
    if version > SCHEMA_VERSION:
        raise FusemixError(
            f"{path} has results schema {version}; this fusemix reads {SCHEMA_VERSION}: pip install -U fusemix"
        )
    if version < SCHEMA_VERSION:
        raise FusemixError(
            f"{path} has results schema {version}, before {SCHEMA_VERSION}: measure it again with fusemix benchmark"
        )
    return dict(record)


def write_retrieval(path: Path, measured: Measured, split: PairedLatents, context: Mapping[str, object]) -> None:
    """Write a retrieval result, and the figures of its queries beside it.

    Args:
        path: of the JSON; the other ends in `.npz`.
        measured: what was measured.
        split: on these items.
        context: run, versions, machine.
    """
    arrays: dict[str, npt.NDArray[Any]] = {"item_ids": _packed(map(str, split.items))}
    for index, (one, (modality, _)) in enumerate(zip(measured.directions, measured.pairs, strict=True)):
        sources = split[modality].sources
        arrays[f"{index}/sources"] = _packed(str(sources[row]) for row in one.rows.tolist())
        arrays |= {f"{index}/{name}": getattr(one, name) for name in _ARRAYS}
        arrays |= {f"{index}/metrics/{name}": values for name, values in one.metrics.items()}
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    beside = path.with_suffix(".npz")
    with replacing(beside) as temporary:
        temporary.write_bytes(packed.getvalue())
    told = {"file": beside.name, "sha256": sha256(packed.getvalue()).hexdigest()}
    write_json(path, "retrieval", {**measured.result.to_dict(), "per_query": told}, context)


def read_retrieval(path: Path) -> StoredRun:
    """Read what `write_retrieval` wrote.

    Raises:
        FusemixError: where the file is no retrieval result, or its queries are not beside it.
    """
    record = read_json(path)
    if record.get("benchmark") != "retrieval":
        raise FusemixError(f"{path} is a result of {record.get('benchmark')!r}: only those of retrieval have queries")
    beside = path.with_name(record["per_query"]["file"])
    try:
        raw = beside.read_bytes()
        if sha256(raw).hexdigest() != record["per_query"]["sha256"]:
            raise FusemixError(f"{beside} does not belong to {path.name}: measure again with fusemix benchmark")
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            directions = {
                one["name"]: _direction(arrays, index, one["gallery"])
                for index, one in enumerate(record["directions"])
            }
            return StoredRun(str(record["run"]), record, _unpacked(arrays["item_ids"]), directions)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise FusemixError(f"the queries of {path} cannot be read from {beside} ({first_line(error)})") from error


def _direction(arrays: Mapping[str, npt.NDArray[Any]], index: int, gallery: int) -> StoredDirection:
    of_metrics = f"{index}/metrics/"
    return StoredDirection(
        _unpacked(arrays[f"{index}/sources"]),
        {name.removeprefix(of_metrics): arrays[name] for name in arrays if name.startswith(of_metrics)},
        arrays[f"{index}/ranks"],
        arrays[f"{index}/items"],
        arrays[f"{index}/folds"],
        gallery,
    )


def _packed(strings: Iterable[str]) -> npt.NDArray[np.uint8]:
    """Return strings as bytes: an array of them would be padded to the longest, and one of objects be a pickle."""
    return np.frombuffer(json.dumps(list(strings)).encode(), np.uint8)


def _unpacked(packed: npt.NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(json.loads(packed.tobytes()))
