"""The order of answers: by row, then by score from the highest, and where scores tie, by the answer's own number.

Scores tie that differ by no more than `tie`, and so do those that a chain of such differences joins.  The order thus
depends neither on the last bits of a score nor on the order in which answers were found.
"""

from __future__ import annotations

import torch
from torch import Tensor


def in_order(rows: Tensor, answers: Tensor, scores: Tensor, tie: float) -> tuple[Tensor, Tensor]:
    """Return the order of (n,) answers of some rows, and the number of each one's group of ties in that order."""
    order = torch.argsort(scores, descending=True)
    order = order[torch.argsort(rows[order], stable=True)]
    row, score = rows[order], scores[order]
    begins = (row[1:] != row[:-1]) | (score[:-1] - score[1:] > tie)
    group = torch.nn.functional.pad(begins.cumsum(0), (1, 0))[: len(order)]
    within = torch.argsort(answers[order], stable=True)
    within = within[torch.argsort(group[within], stable=True)]
    return order[within], group


def first_of_run(numbers: Tensor) -> Tensor:
    """Return where the run of equal numbers begins that each of (n,) increasing numbers belongs to."""
    return torch.searchsorted(numbers, numbers)


def place_in_row(rows: Tensor) -> Tensor:
    """Return how many entries of its row come before each entry of (n,) increasing rows."""
    return torch.arange(len(rows), device=rows.device) - first_of_run(rows)
