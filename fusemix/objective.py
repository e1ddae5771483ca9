"""What training minimises: a weighted sum of losses over edges, the pairs of modalities to align.

One edge is CLIP and FuseMix; every pair of three modalities is a triangle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from torch import Tensor

from fusemix.batch import LatentBatch
from fusemix.joint_space import JointSpace
from fusemix.losses import info_nce


@dataclass(frozen=True)
class Edge:
    """A pair of modalities that symmetric InfoNCE aligns."""

    a: str
    """One modality."""
    b: str
    """The other."""
    weight: float = 1.0
    """Factor of its loss in the sum."""
    temperature: str = "shared"
    """Name of the joint space's temperature that it uses; edges that name the same one share it."""

    @property
    def name(self) -> str:
        """`a-b`."""
        return f"{self.a}-{self.b}"


@dataclass(frozen=True)
class Objective:
    """A weighted sum of losses over edges."""

    edges: tuple[Edge, ...]

    @classmethod
    def all_pairs(cls, modalities: Iterable[str]) -> Objective:
        """Align every pair of modalities, with one temperature for all."""
        return cls(tuple(Edge(a, b) for a, b in combinations(modalities, 2)))

    @property
    def temperatures(self) -> list[str]:
        """Names of the temperatures that the edges use."""
        return sorted({edge.temperature for edge in self.edges})

    def __call__(
        self, embeddings: Mapping[str, Tensor], batch: LatentBatch, space: JointSpace
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total loss and the loss of each edge, unweighted.

        Args:
            embeddings: modality -> (B, dim) embeddings of the batch.
            batch: tells which items have which modality, and which have equal content.
            space: has the temperatures.
        """
        losses = {
            edge.name: info_nce(
                embeddings[edge.a],
                embeddings[edge.b],
                space.log_scales[edge.temperature],
                present_u=batch.present[edge.a],
                present_v=batch.present[edge.b],
                content_u=batch.content[edge.a],
                content_v=batch.content[edge.b],
            )
            for edge in self.edges
        }
        total = sum((edge.weight * losses[edge.name] for edge in self.edges[1:]), self._first(losses))
        return total, losses

    def _first(self, losses: Mapping[str, Tensor]) -> Tensor:
        return self.edges[0].weight * losses[self.edges[0].name]
