"""Validation by retrieval: the figure that selects a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.objective import Edge
from fusemix.retrieval import mean_reciprocal_rank, pool_rows, ranks, recall_at


class Validation:
    """Measures retrieval over the edges of a split, all rows pooled.

    Args:
        latents: the items of the validation split.
        edges: pairs of modalities; those that no item of the split has are left out.

    Raises:
        FusemixError: where no edge has an item.
    """

    def __init__(self, latents: PairedLatents, edges: Sequence[Edge]) -> None:
        self.latents = latents
        have = {e.name: latents[e.a].counts.bool() & latents[e.b].counts.bool() for e in edges}
        self.pools = {e.name: pool_rows(latents, e.a, e.b) for e in edges if bool(have[e.name].any())}
        if not self.pools:
            raise FusemixError("no item of the validation split has two modalities: nothing to select a model by")

    def __call__(self, space: JointSpace) -> dict[str, float]:
        """Return `mrr`, the mean reciprocal rank of both directions over the edges, and the figures of each."""
        needed = {name for pool in self.pools.values() for name in (pool.a, pool.b)}
        embeddings = {
            name: space.encode(name, self.latents[name].values[self.latents[name].rows]) for name in sorted(needed)
        }
        figures: dict[str, float] = {}
        total = 0.0
        for pool in self.pools.values():
            forward, backward = ranks(embeddings[pool.a], embeddings[pool.b], pool.positives)
            for name, result in ((f"{pool.a}-to-{pool.b}", forward), (f"{pool.b}-to-{pool.a}", backward)):
                figures[f"{name}/mrr"] = mean_reciprocal_rank(result)
                figures[f"{name}/R@1"] = float(recall_at(1, result).mean())
                total += figures[f"{name}/mrr"]
        return {"mrr": total / (2 * len(self.pools)), **figures}
