"""Which rows of panels the curves of runs need: one for each edge, and of several datasets one for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .history import Direction, History


@dataclass(frozen=True)
class PanelRow:
    """What a row of panels shows.

    Attributes:
        edge: its name; empty where runs logged nothing but their total loss.
        dataset: where it was validated; empty where a run has only one.
        directions: those that were validated, the one that the edge is named after first.
        with_loss: whether the row shows the loss too, which is the same for all datasets.
    """

    edge: str
    dataset: str
    directions: tuple[Direction, ...]
    with_loss: bool

    @property
    def title(self) -> str:
        """What stands above the row."""
        edge = f"{self.directions[0].source} ↔ {self.directions[0].target}" if self.directions else self.edge
        return f"{self.dataset}: {edge}" if self.dataset else edge

    def loss_of(self, run: History) -> str:
        """Return the field of a run's loss; older runs logged their total loss alone."""
        return f"loss/{self.edge}" if run.edges else "loss"


def panel_rows(runs: Sequence[History]) -> list[PanelRow]:
    """Return the rows for all edges of some runs, in the order in which the runs logged them."""
    directions = list(dict.fromkeys(one for run in runs for one in run.directions()))
    edges = dict.fromkeys(edge for run in runs for edge in run.edges)
    for one in directions:
        if not {one.edge, one.reverse_edge} & edges.keys():
            edges[one.edge] = None
    rows = []
    for edge in edges or [""]:
        ours = [one for one in directions if edge in (one.edge, one.reverse_edge)]
        ours.sort(key=lambda one: one.edge != edge)
        for number, dataset in enumerate(dict.fromkeys(one.dataset for one in ours) or [""]):
            there = tuple(one for one in ours if one.dataset == dataset)
            rows.append(PanelRow(edge, dataset, there, with_loss=number == 0))
    return rows
