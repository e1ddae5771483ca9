"""What a joint space looks like apart from what it retrieves: gaps, spread, dimensions used, and hubs.

Retrieval says how well a space works, these say why.  Modalities that lie in cones of their own (a gap), embeddings
that crowd (uniformity near 0), few dimensions in use (a low effective rank) and hubs that turn up for every query
each cost recall in their own way.  All are computed from float64 tiles: no N x N matrix is held, and the tile changes
nothing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import ModalityLatents, PairedLatents

from .neighbours import nearest_neighbours

TILE = 1024
ROWS_AT_ONCE = 16384
NEIGHBOURS = 10


@dataclass(frozen=True)
class ModalityFigures:
    """Figures of one modality's embeddings."""

    modality: str
    rows: int
    dim: int
    uniformity: float
    effective_rank: float


@dataclass(frozen=True)
class Hubness:
    """How unevenly the rows of a gallery turn up among the nearest of the queries."""

    direction: str
    neighbours: int
    skewness: float
    never: float
    """Part of the gallery that is among the nearest of no query."""


@dataclass(frozen=True)
class PairFigures:
    """Figures of two modalities, over the items that have both."""

    a: str
    b: str
    items: int
    modality_gap: float
    alignment: float
    hubness: tuple[Hubness, Hubness]


@dataclass(frozen=True)
class Diagnostics:
    """The figures of all modalities of a split, and of all pairs of them."""

    dataset: str
    fingerprint: str
    split: str
    modalities: tuple[ModalityFigures, ...]
    pairs: tuple[PairFigures, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the figures as JSON has them."""
        return asdict(self)


def diagnose(
    space: JointSpace, latents: PairedLatents, split: str = "test", neighbours: int = NEIGHBOURS
) -> Diagnostics:
    """Look at the embeddings of a split.

    Args:
        space: embeds the modalities.
        latents: of one dataset; those of its modalities that the space does not have are left out.
        split: which items.
        neighbours: the k of hubness.

    Raises:
        FusemixError: where the split has no item, the latents are of other encoders than the space, a modality has
            fewer than two rows, or two modalities have no more rows of items in common than `neighbours`.
    """
    space.check_latents(latents)
    items = latents.split(split)
    embeddings = {
        name: _embeddings(space, name, items[name]) for name in items.modalities if name in space.modalities
    }
    present = {name: of for name, of in embeddings.items() if len(of)}
    figures = [
        ModalityFigures(name, len(of), of.shape[1], uniformity(of), effective_rank(of))
        for name, of in present.items()
    ]
    pairs = [_pair(items, present, a, b, neighbours) for a, b in combinations(present, 2)]
    stamp = latents.dataset
    return Diagnostics(
        stamp.name, stamp.fingerprint, split, tuple(figures), tuple(pair for pair in pairs if pair is not None)
    )


def modality_gap(a: Tensor, b: Tensor) -> float:
    """Return the distance between the means of two modalities' L2-normalised embeddings, 0 to 2.

    Liang et al., "Mind the gap", NeurIPS 2022 (arXiv 2203.02053): || mean(a) - mean(b) ||.

    Args:
        a: (N, d) embeddings of one modality.
        b: (M, d) of the other.
    """
    return float((_unit(a).mean(dim=0) - _unit(b).mean(dim=0)).norm())


def alignment(a: Tensor, b: Tensor) -> float:
    """Return the mean squared distance of L2-normalised positive pairs, 0 to 4; lower is closer.

    Wang and Isola, ICML 2020 (arXiv 2005.10242): L_align with alpha = 2.

    Args:
        a: (P, d), row i belongs to row i of `b`.
        b: (P, d).
    """
    parts = zip(a.split(ROWS_AT_ONCE), b.split(ROWS_AT_ONCE), strict=True)
    return sum(float((_unit(x) - _unit(y)).square().sum()) for x, y in parts) / len(a)


def uniformity(embeddings: Tensor, t: float = 2.0, tile: int = TILE) -> float:
    """Return log of the mean of exp(-t * squared distance) over pairs of different rows; at most 0, lower is wider.

    Wang and Isola, ICML 2020 (arXiv 2005.10242): L_uniform.

    Args:
        embeddings: (N, d), L2-normalised here.
        t: how soon distance stops to count.
        tile: how many rows are compared with as many at once.

    Raises:
        FusemixError: where there are fewer than two rows.
    """
    if len(embeddings) < 2:
        raise FusemixError(f"uniformity needs at least two rows, not {len(embeddings)}")
    parts = _unit(embeddings).split(tile)
    total = 0.0
    for i, rows in enumerate(parts):
        for j, columns in enumerate(parts[i:], start=i):
            squared = rows.square().sum(dim=1)[:, None] + columns.square().sum(dim=1) - 2 * rows @ columns.t()
            near = torch.exp(-t * squared)
            total += float(near.triu(diagonal=1).sum() if i == j else near.sum())
    return math.log(total / (len(embeddings) * (len(embeddings) - 1) / 2))


def effective_rank(embeddings: Tensor) -> float:
    """Return how many dimensions rows use: exp of the entropy of their singular values, 1 to d.

    Roy and Vetterli, EUSIPCO 2007, of the centred rows: the direction of the mean is the gap's affair, and would hide
    all others.

    Args:
        embeddings: (N, d), taken as they are.

    Raises:
        FusemixError: where all rows are the same.
    """
    mean = sum(part.double().sum(dim=0) for part in embeddings.split(ROWS_AT_ONCE)) / len(embeddings)
    gram = torch.zeros(embeddings.shape[1], embeddings.shape[1], dtype=torch.float64, device=embeddings.device)
    for part in embeddings.split(ROWS_AT_ONCE):
        centred = part.double() - mean
        gram += centred.t() @ centred
    squared = torch.linalg.eigvalsh(gram)
    # What is below the precision of the largest is rounding, whose root would count as a dimension.
    squared = squared[squared > len(gram) * torch.finfo(torch.float64).eps * squared[-1]]
    if len(squared) == 0:
        raise FusemixError(f"all {len(embeddings)} rows are the same: they have no effective rank")
    shares = squared.sqrt() / squared.sqrt().sum()
    return math.exp(-float((shares * shares.log()).sum()))


def hubness(queries: Tensor, gallery: Tensor, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Return the skewness of the k-occurrence, and the part of the gallery that never occurs.

    The k-occurrence of a row is the number of queries that have it among their k nearest.  Radovanovic et al., JMLR
    2010: its third standardised moment, 0 where all rows occur as often, large where there are hubs.
    Neighbours that tie for the last places share them.

    Args:
        queries: (Q, d).
        gallery: (N, d).
        k: neighbours of each query.

    Raises:
        FusemixError: where the gallery has no more than k rows.
    """
    if len(gallery) <= k:
        raise FusemixError(f"hubness of {k} neighbours needs a gallery of more than {k} rows, not {len(gallery)}")
    occurs = torch.zeros(len(gallery), dtype=torch.float64, device=gallery.device)
    for found in nearest_neighbours(queries, gallery, k):
        occurs.index_add_(0, found.gallery, found.share)
    centred = occurs - occurs.mean()
    variance = float(centred.square().mean())
    # Shares of places that add up to the same differ by rounding.
    if variance <= (1e-9 * k) ** 2:
        return 0.0, float((occurs == 0).double().mean())
    return float(centred.pow(3).mean()) / variance**1.5, float((occurs == 0).double().mean())


def _unit(rows: Tensor) -> Tensor:
    return normalize(rows.double(), dim=1)


def _embeddings(space: JointSpace, modality: str, latents: ModalityLatents) -> Tensor:
    """Embed all rows in the order of their items; of a mapped file, so many at once that memory is bounded."""
    parts = [space.encode(modality, latents.values[rows]) for rows in latents.rows.split(ROWS_AT_ONCE)]
    return torch.cat(parts) if parts else torch.empty(0, space.dim)


def _pair(items: PairedLatents, embeddings: dict[str, Tensor], a: str, b: str, neighbours: int) -> PairFigures | None:
    both = (items[a].counts > 0) & (items[b].counts > 0)
    if not bool(both.any()):
        return None
    x, y = (embeddings[name][both[items[name].item_of_row]] for name in (a, b))
    rows_x, rows_y = _positive_pairs(items[a].counts[both], items[b].counts[both])
    directions = [(f"{a} to {b}", x, y), (f"{b} to {a}", y, x)]
    to_b, to_a = (Hubness(name, neighbours, *hubness(q, g, neighbours)) for name, q, g in directions)
    return PairFigures(a, b, int(both.sum()), modality_gap(x, y), alignment(x[rows_x], y[rows_y]), (to_b, to_a))


def _positive_pairs(of_a: Tensor, of_b: Tensor) -> tuple[Tensor, Tensor]:
    """Return all pairs of rows of the same item, given how many rows each item has in both modalities."""
    pairs = of_a * of_b
    item = torch.repeat_interleave(torch.arange(len(pairs)), pairs)
    place = torch.arange(len(item)) - torch.repeat_interleave(pairs.cumsum(0) - pairs, pairs)
    starts_a, starts_b = of_a.cumsum(0) - of_a, of_b.cumsum(0) - of_b
    return starts_a[item] + place // of_b[item], starts_b[item] + place % of_b[item]
