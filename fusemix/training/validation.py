"""Validation by retrieval: the figure that selects a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

import torch
from torch import Tensor

from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.objective import Edge
from fusemix.retrieval import RetrievalPool, pool_rows, ranks, recall_at, reciprocal_ranks
from fusemix.training.splits import has_pair


class Validation:
    """Measures retrieval over the edges, dataset by dataset, all rows of a dataset pooled.

    Args:
        latents: the items of the validation split, of one dataset or of several; those without a pair are left out.
        edges: pairs of modalities; those that no item of a dataset has are left out there.

    Raises:
        FusemixError: where no edge has an item.
    """

    def __init__(self, latents: PairedLatents | Sequence[PairedLatents], edges: Sequence[Edge]) -> None:
        datasets = [latents] if isinstance(latents, PairedLatents) else latents
        pools = [(part, [pool_rows(part, e.a, e.b) for e in edges if has_pair(part, e)]) for part in datasets]
        self.pools = [(part, of_edges) for part, of_edges in pools if of_edges]
        if not self.pools:
            raise FusemixError("no item of the validation split has two modalities: nothing to select a model by")

    @property
    def most_rows(self) -> int:
        """Rows of the modality that has the most."""
        return max(len(modality.rows) for part, _ in self.pools for modality in part.modalities.values())

    def __call__(self, space: JointSpace) -> dict[str, float]:
        """Return figures of retrieval, measured on the device of the joint space.

        `mrr` is the mean reciprocal rank of both directions over the edges, and over the datasets; `mrr_error` is its
        standard error over items, all queries of an item counted together (Liang and Zeger, Biometrika 1986).  With
        them come `A-to-B/mrr` and `A-to-B/R@1` of each direction, and `mean_cosine/A` of each modality: the mean
        cosine of two of its embeddings, near 1 where they collapse.  Of several datasets, each has all of these after
        its own name.
        """
        if len(self.pools) == 1:
            return _measure(space, *self.pools[0])
        measured = {latents.dataset.name: _measure(space, latents, pools) for latents, pools in self.pools}
        figures = {
            "mrr": fmean(of_dataset["mrr"] for of_dataset in measured.values()),
            "mrr_error": math.hypot(*(of_dataset["mrr_error"] for of_dataset in measured.values())) / len(measured),
        }
        for dataset, of_dataset in measured.items():
            figures.update({f"{dataset}/{name}": value for name, value in of_dataset.items()})
        return figures


def _measure(space: JointSpace, latents: PairedLatents, pools: Sequence[RetrievalPool]) -> dict[str, float]:
    embeddings = dict(_embed(space, latents, sorted({name for pool in pools for name in (pool.a, pool.b)})))
    figures: dict[str, float] = {}
    influence = torch.zeros(len(latents), dtype=torch.float64)
    for pool in pools:
        directions = zip(
            ranks(embeddings[pool.a], embeddings[pool.b], pool.positives), _directions(pool), strict=True
        )
        for result, (name, items) in directions:
            reciprocal = reciprocal_ranks(result)
            figures[f"{name}/mrr"] = float(reciprocal.mean())
            figures[f"{name}/R@1"] = float(recall_at(1, result).mean())
            influence.index_add_(0, items[result.queries], (reciprocal - reciprocal.mean()) / len(reciprocal))
    mrr = fmean(value for name, value in figures.items() if name.endswith("/mrr"))
    error = float(influence.norm()) / (2 * len(pools))
    cosines = {f"mean_cosine/{name}": _mean_cosine(rows) for name, rows in embeddings.items() if len(rows) > 1}
    return {"mrr": mrr, "mrr_error": error, **figures, **cosines}


def _directions(pool: RetrievalPool) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
    """Return the name of each direction, and the item of each of its queries."""
    return (f"{pool.a}-to-{pool.b}", pool.items_a), (f"{pool.b}-to-{pool.a}", pool.items_b)


def _embed(space: JointSpace, latents: PairedLatents, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    for name in names:
        modality = latents[name]
        if modality.mapped is not None:
            modality.mapped.check()
        embeddings = space.encode(name, modality.values[modality.rows])
        yield name, embeddings.to(space.adapter(name).mean.device)


def _mean_cosine(embeddings: Tensor) -> float:
    """Return the mean cosine of two of (N, d) normalised embeddings: from their sum, because the pairs are many."""
    count, total = len(embeddings), embeddings.sum(dim=0, dtype=torch.float64)
    return (float(total.square().sum()) - count) / (count * (count - 1))
