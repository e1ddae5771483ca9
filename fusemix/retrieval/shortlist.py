"""A few more answers of each row than are wanted, those of the highest float32 scores.

Almost every score of a tile is below what its row already has.  So a tile is first asked for the groups of scores
whose highest is above the lowest that its row has listed; the few entries above it wait until there are enough of
them to be worth a sort.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fusemix.retrieval.comparison import GROUP
from fusemix.retrieval.tiles import Exact, Tile


class Shortlist:
    """The highest scores of each row of one direction.

    Attributes:
        scores: (rows, width) float32, highest first, minus infinity where there is no answer.
        answers: (rows, width) int64, -1 where there is none.
        floor: (rows,) float32: every score that is not listed is at most this.
    """

    def __init__(self, rows: int, width: int, tile: int, device: torch.device) -> None:
        self.scores = torch.full((rows, width), -torch.inf, device=device)
        self.answers = torch.full((rows, width), -1, dtype=torch.int64, device=device)
        self.floor = torch.full((rows,), -torch.inf, device=device)
        views = zip(*(tensor.split(tile) for tensor in (self.scores, self.answers, self.floor)), strict=True)
        self._parts = [_Part(tile, *tensors) for tensors in views]

    def count(self, tile: Tile) -> None:
        """List what is higher than the lowest score that is listed."""
        self._parts[tile.own].add(tile)

    def settle(self, exact: Exact) -> None:
        """Leave all as it is: what float32 cannot decide is decided from the finished list."""

    def finish(self) -> None:
        """List what still waits."""
        for part in self._parts:
            part.merge()


class _Part:
    """The lists of a tile of rows."""

    def __init__(self, tile: int, scores: Tensor, answers: Tensor, floor: Tensor) -> None:
        self._tile, self._scores, self._answers, self._floor = tile, scores, answers, floor
        self._empty = True
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._count = 0

    def add(self, tile: Tile) -> None:
        if self._empty:
            # All entries are above nothing: sorting out the highest is quicker than listing all.
            scores, answers = tile.scores.topk(min(self._scores.shape[1], tile.scores.shape[1]), dim=1)
            self._keep(scores, answers + tile.other * self._tile)
            return
        hot = (tile.highest > self._floor[:, None]).nonzero()
        if len(hot) == 0:
            return
        own, groups = hot.unbind(dim=1)
        near = tile.of_groups(own, groups)
        rows, columns = (near > self._floor[own, None]).nonzero(as_tuple=True)
        first = tile.other * self._tile + groups * GROUP
        self._waiting.append((own[rows], first[rows] + columns, near[rows, columns]))
        self._count += len(rows)
        if self._count >= self._scores.numel():
            self.merge()

    def merge(self) -> None:
        """Keep the highest of what is listed and what waits."""
        if not self._waiting:
            return
        rows, answers, scores = (torch.cat(column) for column in zip(*self._waiting, strict=True))
        self._waiting, self._count = [], 0
        rows, order = torch.sort(rows, stable=True)
        place = torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows) + self._scores.shape[1]
        shape = len(self._scores), int(place.max()) + 1
        all_scores = torch.full(shape, -torch.inf, device=rows.device)
        all_answers = torch.full(shape, -1, dtype=torch.int64, device=rows.device)
        all_scores[:, : self._scores.shape[1]], all_answers[:, : self._scores.shape[1]] = self._scores, self._answers
        all_scores[rows, place], all_answers[rows, place] = scores[order], answers[order]
        best, where = all_scores.topk(self._scores.shape[1], dim=1)
        self._keep(best, all_answers.gather(1, where))

    def _keep(self, scores: Tensor, answers: Tensor) -> None:
        self._empty = False
        self._scores[:, : scores.shape[1]] = scores
        # A positive in its own list is there for want of others.
        self._answers[:, : scores.shape[1]] = answers.masked_fill(scores == -torch.inf, -1)
        self._floor.copy_(self._scores.amin(dim=1))
