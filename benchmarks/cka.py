"""Linear CKA between stored latents: how alike two encoders see the same items, before anything is trained.

Encoders whose latents are alike are easier to align (freeze-align chooses its pair this way), so the matrix over all
latents files of a dataset says which pair to try first.  Rotation and scaling of either side change nothing.  In
feature space (Kornblith et al., ICML 2019, arXiv 1905.00414) only the D x D' products of the centred latents are
needed, so a file of any length is read in chunks.

The plain estimate is biased upwards where items are not many more than dimensions: unrelated latents look alike, and
those of a wide encoder more than those of a narrow one.  So the debiased one (Nguyen et al., ICLR 2021, arXiv
2010.15327, by the unbiased HSIC of Song et al., JMLR 2012) is what is shown.  It comes of the same reading, is about
0 for unrelated latents, and may fall slightly below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fusemix.errors import FusemixError
from fusemix.latents.file import DONE, LatentsFile
from fusemix.latents.mapped import MappedLatents

ITEMS_AT_ONCE = 4096
FEWEST_ITEMS = 4
ROUNDING = 1e-24

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class CkaMatrix:
    """Linear CKA of every two of some latents files.

    Attributes:
        names: of the files, `modality/encoder` by default.
        modalities: of the files.
        items: number of items that both files of a pair have.
        values: debiased CKA, at most 1.
        biased: the plain one, 0 to 1.
    """

    dataset: str
    fingerprint: str
    split: str
    names: tuple[str, ...]
    modalities: tuple[str, ...]
    items: tuple[tuple[int, ...], ...]
    values: Matrix
    biased: Matrix

    def best_pair(self) -> tuple[int, int] | None:
        """Return the places of the two encoders of different modalities that are most alike, if there are any."""
        pairs = [
            (i, j) for i, j in combinations(range(len(self.names)), 2) if self.modalities[i] != self.modalities[j]
        ]
        return max(pairs, key=lambda pair: self.values[pair[0]][pair[1]], default=None)

    def to_dict(self) -> dict[str, object]:
        """Return the matrix as JSON has it."""
        return asdict(self)


def cka_matrix(files: Sequence[LatentsFile], split: str = "train", items_at_once: int = ITEMS_AT_ONCE) -> CkaMatrix:
    """Compare the latents of every two files over the items that both have; an item with several rows has their mean.

    Args:
        files: of one dataset, two or more; several may be of one modality.
        split: which items; choosing encoders is part of training, so not those that are tested on.
        items_at_once: how many items are read at once.

    Raises:
        FusemixError: where there are fewer than two files, one is given twice, they are of different datasets, two
            have fewer than four items of the split in common or one has none, or latents are all the same.
    """
    _check(files, split)
    names = _names(files)
    everything = sorted(set().union(*(set(file.items[_usable(file, split)]) for file in files)))
    position = {item: place for place, item in enumerate(everything)}
    sources = [_ItemMeans(file, _usable(file, split), position) for file in files]
    count = len(files)
    values, biased = np.eye(count), np.eye(count)
    shared = np.diag([int(source.has.sum()) for source in sources])
    for items, pairs in _groups(sources).items():
        places = np.frombuffer(items, np.int64)
        for i, j in pairs:
            if len(places) < FEWEST_ITEMS:
                raise FusemixError(
                    f"{files[i].path} and {files[j].path} have {len(places)} items of the split {split!r} in common:"
                    f" CKA needs {FEWEST_ITEMS} at least"
                )
        products = _Products(sources, pairs, places, items_at_once)
        for i, j in pairs:
            shared[i, j] = shared[j, i] = len(places)
            for place in (i, j):
                _check_varied(files[place], products, place)
            biased[i, j] = biased[j, i] = _ratio(products.biased, i, j)
            values[i, j] = values[j, i] = _ratio(products.debiased, i, j)
    stamp = files[0].provenance.dataset
    return CkaMatrix(
        stamp.name,
        stamp.fingerprint,
        split,
        names,
        tuple(file.spec.modality for file in files),
        tuple(tuple(row) for row in shared.tolist()),
        tuple(tuple(row) for row in values.tolist()),
        tuple(tuple(row) for row in biased.tolist()),
    )


class _ItemMeans:
    """The mean latent of each item of a file."""

    def __init__(self, file: LatentsFile, rows: npt.NDArray[np.int64], position: Mapping[str, int]) -> None:
        item_of_row = np.fromiter((position[item] for item in file.items[rows]), np.int64, len(rows))
        self.rows = rows[np.argsort(item_of_row, kind="stable")]
        self.counts = np.bincount(item_of_row, minlength=len(position))
        self.offsets = np.concatenate([[0], self.counts.cumsum()])
        self.has = self.counts > 0
        self.dim = file.dim
        self._mapped = MappedLatents(file)

    def of(self, items: npt.NDArray[np.int64]) -> Tensor:
        """Return the means of items that the file has, (n, D) float64."""
        self._mapped.check()
        counts = torch.from_numpy(self.counts[items])
        owner = torch.repeat_interleave(torch.arange(len(items)), counts)
        first = torch.from_numpy(self.offsets[items]) - (counts.cumsum(0) - counts)
        rows = self.rows[(first[owner] + torch.arange(len(owner))).numpy()]
        values = self._mapped.values[torch.from_numpy(rows)].double()
        self._mapped.release()
        return torch.zeros(len(items), self.dim, dtype=torch.float64).index_add_(0, owner, values) / counts[:, None]


class _Products:
    """Sums over some items from which the CKA of some pairs follows, centred, in two readings.

    Args:
        sources: the latents.
        pairs: places of the two sources of each pair.
        items: positions of the items, which all of these sources have.
        items_at_once: how many are read at once.
    """

    def __init__(
        self,
        sources: Sequence[_ItemMeans],
        pairs: Sequence[tuple[int, int]],
        items: npt.NDArray[np.int64],
        items_at_once: int,
    ) -> None:
        used = sorted({place for pair in pairs for place in pair})
        self.count = len(items)
        self._means = {place: torch.zeros(sources[place].dim, dtype=torch.float64) for place in used}
        for some in _chunks(items, items_at_once):
            for place in used:
                self._means[place] += sources[place].of(some).sum(dim=0) / len(items)
        wanted = [*pairs, *((place, place) for place in used)]
        self._cross = {(i, j): torch.zeros(sources[i].dim, sources[j].dim, dtype=torch.float64) for i, j in wanted}
        self._norms = dict.fromkeys(wanted, 0.0)
        self._total = dict.fromkeys(used, 0.0)
        for some in _chunks(items, items_at_once):
            centred = {place: sources[place].of(some) - self._means[place] for place in used}
            norms = {place: rows.square().sum(dim=1) for place, rows in centred.items()}
            for place in used:
                self._total[place] += float(norms[place].sum())
            for i, j in wanted:
                self._cross[i, j] += centred[i].t() @ centred[j]
                self._norms[i, j] += float(norms[i] @ norms[j])

    def varies(self, place: int) -> bool:
        """Return whether latents differ by more than the rounding of their mean."""
        return self._total[place] > ROUNDING * self.count * float(self._means[place].square().sum())

    def biased(self, i: int, j: int) -> float:
        """Return HSIC with linear kernels, times a factor that all have."""
        return float(self._cross[i, j].square().sum())

    def debiased(self, i: int, j: int) -> float:
        """Return its unbiased estimate, times a factor that all have.

        The sums over the kernel matrices without their diagonals (Song et al., equation 5) in terms of the features:
        rows of centred latents add up to zero, so only the norms of the rows are left.
        """
        n = self.count
        return (
            self.biased(i, j)
            - n / (n - 2) * self._norms[i, j]
            + self._total[i] * self._total[j] / ((n - 1) * (n - 2))
        )


def _groups(sources: Sequence[_ItemMeans]) -> dict[bytes, list[tuple[int, int]]]:
    """Return the items (as bytes) that pairs have in common -> the pairs: most often, one group has them all."""
    groups: dict[bytes, list[tuple[int, int]]] = {}
    for i, j in combinations(range(len(sources)), 2):
        items = np.flatnonzero(sources[i].has & sources[j].has)
        groups.setdefault(items.tobytes(), []).append((i, j))
    return groups


def _chunks(items: npt.NDArray[np.int64], at_once: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(items), at_once):
        yield items[start : start + at_once]


def _ratio(hsic: Callable[[int, int], float], i: int, j: int) -> float:
    return hsic(i, j) / math.sqrt(hsic(i, i) * hsic(j, j))


def _check_varied(file: LatentsFile, products: _Products, place: int) -> None:
    if not products.varies(place):
        raise FusemixError(f"the latents in {file.path} are all the same: CKA compares how they differ")
    if products.debiased(place, place) <= 0:
        raise FusemixError(f"{products.count} items are too few to tell how the latents in {file.path} differ")


def _usable(file: LatentsFile, split: str) -> npt.NDArray[np.int64]:
    return np.flatnonzero((file.status == DONE) & (file.splits == split))


def _names(files: Sequence[LatentsFile]) -> tuple[str, ...]:
    return tuple(f"{file.spec.modality}/{file.path.stem}" for file in files)


def _check(files: Sequence[LatentsFile], split: str) -> None:
    if len(files) < 2:
        raise FusemixError(f"CKA compares two latents files at least, not {len(files)}")
    for a, b in combinations(files, 2):
        if a.path == b.path:
            raise FusemixError(f"{a.path} is given twice")
        one, other = a.provenance.dataset, b.provenance.dataset
        if one.name != other.name or (one.fingerprint and other.fingerprint and one.fingerprint != other.fingerprint):
            raise FusemixError(
                f"{a.path} and {b.path} are of different datasets:"
                f" {one.name!r} ({one.fingerprint or 'no fingerprint'}) and"
                f" {other.name!r} ({other.fingerprint or 'no fingerprint'})"
            )
    for file in files:
        if split not in file.splits[file.status == DONE]:
            have = ", ".join(sorted(set(file.splits[file.status == DONE]))) or "none"
            raise FusemixError(f"{file.path} has no latent of the split {split!r} (splits with latents: {have})")
