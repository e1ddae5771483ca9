"""The k best answers of each row, exact and in a stated order.

They come from a shortlist of float32 scores, computed again in float64.  Where the shortlist may have missed one,
because too many answers score about as much (copies, a collapsed space), the row is compared with all answers in
float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix.retrieval.comparison import Comparison
from fusemix.retrieval.ordering import in_order, place_in_row
from fusemix.retrieval.shortlist import Shortlist
from fusemix.retrieval.sources import Blocks

# How many more answers than wanted are listed: room for those that float32 cannot tell apart.
SPARE = 8


@dataclass(frozen=True)
class TopK:
    """The best answers of each row, whether or not the row has a positive.

    Attributes:
        answers: (rows, at most k) int64, best first, of equal scores the lower number first; -1 where there are none
            left.
        scores: (rows, at most k) float64 inner products; minus infinity where there is no answer.
    """

    answers: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Found:
    """Some answers of some rows, (n,) each; `in_order` orders them."""

    rows: Tensor
    answers: Tensor
    scores: Tensor

    def best(self, k: int, tie: float) -> Found:
        """Return the k best of each row, in order."""
        order, _ = in_order(self.rows, self.answers, self.scores, tie)
        chosen = order[place_in_row(self.rows[order]) < k]
        return Found(self.rows[chosen], self.answers[chosen], self.scores[chosen])

    def with_others(self, other: Found) -> Found:
        """Return these answers and others."""
        pairs = ((self.rows, other.rows), (self.answers, other.answers), (self.scores, other.scores))
        return Found(*(torch.cat(pair) for pair in pairs))

    def table(self, rows: int, width: int, unit: float) -> TopK:
        """Return answers that are in order as a table of all rows, the scores in multiples of `unit`."""
        place = place_in_row(self.rows)
        answers = torch.full((rows, width), -1, dtype=torch.int64)
        scores = torch.full((rows, width), -torch.inf, dtype=torch.float64)
        answers[self.rows.cpu(), place.cpu()] = self.answers.cpu()
        scores[self.rows.cpu(), place.cpu()] = self.scores.cpu() * unit
        return TopK(answers, scores)


def best_wrong(comparison: Comparison, side: int, shortlist: Shortlist, k: int) -> Found:
    """Return the k best wrong answers of each row of side 0, the queries, or 1, the gallery, in order."""
    shortlist.finish()
    # None below the k-th by more than two errors can be among the first k.
    last_listed = shortlist.scores[:, k - 1, None] - 2 * comparison.band
    rows, places = ((shortlist.answers >= 0) & (shortlist.scores >= last_listed)).nonzero(as_tuple=True)
    found = _exact(comparison, side, rows, shortlist.answers[rows, places]).best(k, comparison.tie)
    last = place_in_row(found.rows) == k - 1
    least = torch.full(shortlist.floor.shape, -torch.inf, dtype=torch.float64, device=rows.device)
    least[found.rows[last]] = found.scores[last]
    # Minus infinity: no score was left off the list.
    may_miss = (shortlist.floor > -torch.inf) & (shortlist.floor.double() + comparison.band >= least - comparison.tie)
    if not bool(may_miss.any()):
        return found
    again = may_miss.nonzero()[:, 0]
    all_compared = [_compare_with_all(comparison, side, part, k) for part in again.split(comparison.tile)]
    sure = ~may_miss[found.rows]
    found = Found(found.rows[sure], found.answers[sure], found.scores[sure])
    for part in all_compared:
        found = found.with_others(_exact(comparison, side, part.rows, part.answers))
    return found.best(k, comparison.tie)


def _exact(comparison: Comparison, side: int, rows: Tensor, answers: Tensor) -> Found:
    pair = (rows, answers) if side == 0 else (answers, rows)
    return Found(rows, answers, comparison.exact(*pair))


def _compare_with_all(comparison: Comparison, side: int, rows: Tensor, k: int) -> Found:
    """Return the k best wrong answers of at most a tile of increasing rows."""
    sides = comparison.queries, comparison.gallery
    vectors, other, tie = _rows_of(sides[side], rows).double(), sides[1 - side], comparison.tie
    own, right = comparison.positives[:, side], comparison.positives[:, 1 - side]
    found = Found(rows[:0], rows[:0], comparison.scores[:0])
    least = torch.full((len(rows),), -torch.inf, dtype=torch.float64, device=rows.device)
    concerned = torch.isin(own, rows)
    own, right = torch.searchsorted(rows, own[concerned]), right[concerned]
    for number in range(len(other)):
        for start, part in enumerate(other.block(number).split(comparison.tile)):
            first = number * other.size + start * comparison.tile
            scores = vectors @ part.double().t()
            inside = (right >= first) & (right < first + len(part))
            scores[own[inside], right[inside] - first] = -torch.inf
            # An answer as good as the last of k comes after it: its number is higher.
            row, column = (scores > least[:, None] + tie).nonzero(as_tuple=True)
            if len(row) == 0:
                continue
            new = Found(row, column + first, scores[row, column])
            found = found.with_others(new).best(k, tie)
            last = place_in_row(found.rows) == k - 1
            least[found.rows[last]] = found.scores[last]
    return Found(rows[found.rows], found.answers, found.scores)


def _rows_of(blocks: Blocks, rows: Tensor) -> Tensor:
    block = rows // blocks.size
    return torch.cat([blocks.block(n)[rows[block == n] - n * blocks.size] for n in block.unique().tolist()])
