"""Latents of several modalities, joined on their items.

An item may have any number of rows in a modality (five captions) or none (a clip without sound).  Rows stay where
the file has them; what is kept for each modality is the list of its rows sorted by item, with an offset per item,
so a split is a change of indices and copies no latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fusemix.errors import FusemixError, nearest
from fusemix.latents.columns import Columns, read_columns
from fusemix.latents.file import LatentsFile
from fusemix.latents.mapped import MappedLatents
from fusemix.latents.provenance import DatasetStamp, EncoderSpec, content_hash

ELEMENTS_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class ModalityLatents:
    """Rows of one modality.

    `values` (R, D) and `content` (R,) int64 lie in the order of the file; `rows` lists those that belong to the
    items, sorted by item, and `offsets` (I + 1,) tells where each item's rows begin in `rows`.  Where `mapped` is
    given, `values` are its: they lie in the file and not in memory.
    """

    values: Tensor
    content: Tensor
    sources: Sequence[str]
    rows: Tensor
    offsets: Tensor
    spec: EncoderSpec | None = None
    mapped: MappedLatents | None = None

    @property
    def counts(self) -> Tensor:
        """Number of rows of each item, (I,) int64."""
        return self.offsets[1:] - self.offsets[:-1]

    @cached_property
    def one_each(self) -> bool:
        """Whether each item has exactly one row."""
        return bool((self.counts == 1).all())

    @property
    def item_of_row(self) -> Tensor:
        """For each entry of `rows`, the position of its item, (len(rows),) int64."""
        return torch.repeat_interleave(torch.arange(len(self.offsets) - 1), self.counts)

    def in_chunks(self, elements: int = ELEMENTS_AT_ONCE) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all rows with their latents in the order of the file, so many that they have `elements` numbers.

        What was read of a mapped file does not stay in memory.
        """
        for rows in self.rows.sort().values.split(max(1, elements // self.values.shape[1])):
            if self.mapped is not None:
                self.mapped.check()
            yield rows, self.values[rows]
            if self.mapped is not None:
                self.mapped.release()

    def restricted_to(self, positions: Tensor) -> ModalityLatents:
        """Keep the items at increasing `positions`; the latents themselves are shared, not copied."""
        counts = self.counts[positions]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        starts = torch.repeat_interleave(self.offsets[positions] - offsets[:-1], counts)
        return replace(self, rows=self.rows[starts + torch.arange(len(starts))], offsets=offsets)


@dataclass(frozen=True)
class PairedLatents:
    """Items with their splits, and the latents of each modality.

    Args:
        items: item ids, sorted, each once.
        splits: split of each item.
        modalities: modality -> its latents; all have one offset per item.
        dataset: where the items come from.
    """

    items: npt.NDArray[np.object_]
    splits: npt.NDArray[np.object_]
    modalities: Mapping[str, ModalityLatents]
    dataset: DatasetStamp

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, modality: str) -> ModalityLatents:
        if modality not in self.modalities:
            raise FusemixError(f"no latents of modality {modality!r}: {nearest(modality, self.modalities)}")
        return self.modalities[modality]

    def split(self, *names: str) -> PairedLatents:
        """Return the items of one split, or of several together.

        Raises:
            FusemixError: where no item belongs to it.
        """
        positions = np.flatnonzero(np.isin(self.splits, names))
        if len(positions) == 0:
            have = ", ".join(sorted(set(self.splits))) or "none"
            raise FusemixError(
                f"dataset {self.dataset.name!r} has no item in the split {' or '.join(map(repr, names))} (splits with"
                f" items: {have})"
            )
        return self.at(torch.from_numpy(positions))

    def at(self, positions: Tensor) -> PairedLatents:
        """Return the items at increasing `positions`; the latents themselves are shared, not copied."""
        return PairedLatents(
            self.items[positions.numpy()],
            self.splits[positions.numpy()],
            {name: latents.restricted_to(positions) for name, latents in self.modalities.items()},
            self.dataset,
        )

    @classmethod
    def load(cls, files: Mapping[str, Path | str | Sequence[Path | str]], *, mapped: bool = False) -> PairedLatents:
        """Read latents files and join the modalities on their items.

        Rows that are not done are left out, so an item can lack a modality.

        Args:
            files: modality -> latents file, or several whose latents are concatenated: see `read_columns`.
            mapped: leave latents in their files and map them, for what is larger than the memory; concatenated ones
                are read all the same.

        Raises:
            FusemixError: where a file is of another modality, has no finished row or a latent that is not
                finite, or where the files are of different datasets.
        """
        opened = {
            modality: [LatentsFile(path) for path in ([given] if isinstance(given, (Path, str)) else given)]
            for modality, given in files.items()
        }
        for modality, parts in opened.items():
            if not parts:
                raise FusemixError(f"no latents file was given for {modality!r}")
            for file in parts:
                if file.spec.modality != modality:
                    raise FusemixError(f"{file.path} holds {file.spec.modality} latents, not {modality}")
        stamp = _one_dataset([file for parts in opened.values() for file in parts])
        return _join({modality: read_columns(parts, mapped=mapped) for modality, parts in opened.items()}, stamp)

    @classmethod
    def from_arrays(
        cls,
        latents: Mapping[str, npt.NDArray[Any]],
        items: Mapping[str, Sequence[str]],
        splits: Mapping[str, str],
        *,
        sources: Mapping[str, Sequence[str]] | None = None,
        dataset: str = "arrays",
    ) -> PairedLatents:
        """Join latents that lie in memory.

        Args:
            latents: modality -> (R, D) latents.
            items: modality -> the item of each of its R rows.
            splits: item -> split.
            sources: modality -> captions or paths of its rows; equal ones count as equal content.
            dataset: a name for messages.

        Raises:
            FusemixError: where lengths disagree, an item has no split, or a latent is not finite.
        """
        columns = {}
        for modality, values in latents.items():
            ids = list(items[modality])
            named = (sources or {}).get(modality) or [f"{item}#{row}" for row, item in enumerate(ids)]
            if values.ndim != 2 or not len(values) == len(ids) == len(named):
                raise FusemixError(
                    f"{modality}: latents of shape {values.shape}, {len(ids)} items and {len(named)} sources do"
                    " not belong together"
                )
            without = [item for item in ids if item not in splits]
            if without:
                raise FusemixError(f"{modality}: item {without[0]!r} has no split ({len(without)} such rows)")
            columns[modality] = Columns(
                np.array(ids, object),
                np.array([splits[item] for item in ids], object),
                np.array(named, object),
                np.array([content_hash(source.encode()) for source in named], np.uint64),
                values,
                np.arange(len(ids)),
                None,
            )
        return _join(columns, DatasetStamp(dataset))


def _join(columns: Mapping[str, Columns], dataset: DatasetStamp) -> PairedLatents:
    split_of: dict[str, str] = {}
    for modality, c in columns.items():
        for item, split in zip(c.items[c.used], c.splits[c.used], strict=True):
            if split_of.setdefault(item, split) != split:
                raise FusemixError(
                    f"item {item!r} is in the split {split!r} for {modality} and {split_of[item]!r} elsewhere;"
                    " an item belongs to one split"
                )
    items = np.array(sorted(split_of), object)
    position = {item: index for index, item in enumerate(items)}
    splits = np.array([split_of[item] for item in items], object)
    return PairedLatents(items, splits, {name: _by_item(name, c, position) for name, c in columns.items()}, dataset)


def _by_item(modality: str, columns: Columns, position: Mapping[str, int]) -> ModalityLatents:
    mapped = columns.values if isinstance(columns.values, MappedLatents) else None
    values = columns.values.values if isinstance(columns.values, MappedLatents) else torch.from_numpy(columns.values)
    item_of_row = np.array([position[item] for item in columns.items[columns.used]], np.int64)
    order = np.argsort(item_of_row, kind="stable")
    counts = np.bincount(item_of_row, minlength=len(position))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    latents = ModalityLatents(
        values,
        torch.from_numpy(columns.content.view(np.int64)),
        columns.sources.tolist(),
        torch.from_numpy(columns.used[order]),
        torch.from_numpy(offsets),
        columns.spec,
        mapped,
    )
    _check_finite(modality, latents, columns)
    return latents


def _check_finite(modality: str, latents: ModalityLatents, columns: Columns) -> None:
    for rows, values in latents.in_chunks():
        bad = rows[~torch.isfinite(values).all(dim=1)]
        if len(bad):
            row = int(bad[0])
            raise FusemixError(
                f"{modality} latent of row {row} (item {columns.items[row]!r}, {columns.sources[row]!r}) is NaN or"
                " infinite; extract it again or leave the item out"
            )


def _one_dataset(files: Sequence[LatentsFile]) -> DatasetStamp:
    for first, second in combinations(files, 2):
        a, b = first.provenance.dataset, second.provenance.dataset
        same = a.name == b.name and (not a.fingerprint or not b.fingerprint or a.fingerprint == b.fingerprint)
        if not same:
            raise FusemixError(
                f"{first.path} and {second.path} are of different datasets:"
                f" {a.name!r} ({a.fingerprint or 'no fingerprint'}) and"
                f" {b.name!r} ({b.fingerprint or 'no fingerprint'}); extract both from the same dataset"
            )
    return files[0].provenance.dataset
