"""What training minimises: a weighted sum of losses over edges, the pairs of modalities to align.

Each edge sees the items of a batch that have one of its modalities: those that have both are its pairs, the others
its negatives.  An edge without a pair in the batch adds exactly 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from torch import Tensor

from fusemix.batch import LatentBatch
from fusemix.edge import Edge, check_distinct
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.losses import info_nce, sigmoid_loss

__all__ = ["Edge", "Objective"]


@dataclass(frozen=True)
class Objective:
    """A weighted sum of losses over edges.

    Attributes:
        edges: one or more, each between other modalities.
        mask_equal_content: whether items of equal content are left out of each other's negatives; after mixup, items
            with an equal parent.  Items that are mixed from one and the same item are left out either way.

    Raises:
        FusemixError: where there is no edge, or two join the same modalities.
    """

    edges: tuple[Edge, ...]
    mask_equal_content: bool = True

    def __post_init__(self) -> None:
        if not self.edges:
            raise FusemixError("an objective has one edge or more, each between two modalities")
        check_distinct(self.edges)

    @classmethod
    def all_pairs(cls, modalities: Iterable[str]) -> Objective:
        """Align every pair of modalities, with one temperature for all."""
        return cls(tuple(Edge(a, b) for a, b in combinations(modalities, 2)))

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities that the edges join."""
        return sorted({name for edge in self.edges for name in (edge.a, edge.b)})

    @property
    def temperatures(self) -> list[str]:
        """Names of the learned temperatures that the edges use."""
        return sorted({edge.temperature for edge in self.edges if isinstance(edge.temperature, str)})

    @property
    def biases(self) -> list[str]:
        """Names of the biases that the edges use: those of the edges with the sigmoid loss."""
        return sorted(edge.name for edge in self.edges if edge.loss == "sigmoid")

    def temperature(self, edge: Edge, space: JointSpace) -> float:
        """Return the temperature that an edge has in a joint space."""
        return space.temperature(edge.temperature) if isinstance(edge.temperature, str) else edge.temperature

    def __str__(self) -> str:
        kept = "" if self.mask_equal_content else "; equal content among the negatives"
        return ", ".join(map(str, self.edges)) + kept

    def __call__(
        self, embeddings: Mapping[str, Tensor], batch: LatentBatch, space: JointSpace
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total loss and the loss of each edge, unweighted.

        Args:
            embeddings: modality -> (B, dim) embeddings of the batch.
            batch: tells which items have which modality, and which have equal content.
            space: has the learned temperatures and the biases.
        """
        losses = {edge.name: self._loss(edge, embeddings, batch, space) for edge in self.edges}
        total = sum((edge.weight * losses[edge.name] for edge in self.edges[1:]), self._first(losses))
        return total, losses

    def _first(self, losses: Mapping[str, Tensor]) -> Tensor:
        return self.edges[0].weight * losses[self.edges[0].name]

    def _loss(self, edge: Edge, embeddings: Mapping[str, Tensor], batch: LatentBatch, space: JointSpace) -> Tensor:
        u, v = embeddings[edge.a], embeddings[edge.b]
        if isinstance(edge.temperature, str):
            log_scale = space.log_scales[edge.temperature]
        else:
            log_scale = u.new_tensor(-math.log(edge.temperature))
        masks = {
            "present_u": batch.present[edge.a],
            "present_v": batch.present[edge.b],
            "content_u": self._told_apart_by(edge.a, batch),
            "content_v": self._told_apart_by(edge.b, batch),
        }
        if edge.loss == "sigmoid":
            return sigmoid_loss(u, v, log_scale, space.biases[edge.name], **masks)
        return info_nce(u, v, log_scale, **masks)

    def _told_apart_by(self, modality: str, batch: LatentBatch) -> Tensor | None:
        """Return what makes two items false negatives where they have it in common, (B, P)."""
        if self.mask_equal_content:
            return batch.content[modality]
        # Two mixtures of one item are alike whatever the contents of the data are: the lambda decides how much.
        return batch.parents if batch.parents.shape[1] > 1 else None
