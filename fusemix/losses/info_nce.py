"""Symmetric InfoNCE, exact and tiled: memory O(tile^2 + B d) instead of O(B^2).

    L = 1/(2K) sum_k [lse_row(k) - S_kk + lse_col(k) - S_kk],   S = exp(log_scale) U V^T

over the K pairs, as in CLIP (arXiv 2103.00020, figure 3) and FuseMix (arXiv 2312.10144, eq. 2).  One GEMM per tile
serves both directions.  The forward pass keeps only the log-sum-exp of each row and column; the backward pass
computes the tiles again and needs two more GEMMs for the gradients: 8 B^2 d FLOPs in all, where two stored
matrices take 12.

Where the scores of a tile lie within a range that float32's exponential can hold, one exponential per entry serves
rows and columns alike: exp(S - max) is scaled by row and by column afterwards.  Wider tiles, which only low
temperatures produce, take one exponential for each direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fusemix.losses.negatives import Layout, lay_out

TILE = {"cpu": 1024, "cuda": 8192}
NARROW_RANGE = 40.0
# exp of less than these would be, or make, subnormal numbers, which slow a GEMM down ten times; both are far below
# what float32 can add to a probability.
SMALLEST_EXPONENT, SMALLEST_FACTOR = -80.0, -45.0
LARGEST_FACTOR = 80.0


def info_nce(
    u: Tensor,
    v: Tensor,
    log_scale: Tensor,
    *,
    present_u: Tensor | None = None,
    present_v: Tensor | None = None,
    content_u: Tensor | None = None,
    content_v: Tensor | None = None,
) -> Tensor:
    """Return the symmetric InfoNCE of B items as a scalar; exactly 0 where no item has both sides.

    Items with one side only serve as negatives.  Two items of equal content on either side are not each other's
    negatives: their cross entries are left out of both softmaxes.

    Args:
        u: (B, d) L2-normalised embeddings of one modality, float16, float32 or float64.
        v: (B, d) embeddings of the other modality, of the same type.
        log_scale: scalar log(1 / temperature).
        present_u: (B,) bool, items that have u; all if left out.
        present_v: (B,) bool, items that have v.
        content_u: (B,) or (B, P) int64 hashes of the raw inputs behind u, P > 1 where latents were mixed; two items
            are equal if any of their parents are.
        content_v: the same for v.

    Raises:
        ValueError: where shapes disagree.
        TypeError: for bfloat16, whose 8 bits cannot tell cosines apart, and for operands of two types.
    """
    if u.ndim != 2 or u.shape != v.shape:
        raise ValueError(f"u and v must both be (B, d), not {tuple(u.shape)} and {tuple(v.shape)}")
    if u.dtype != v.dtype or u.dtype not in (torch.float16, torch.float32, torch.float64):
        raise TypeError(f"u and v must both be float16, float32 or float64, not {u.dtype} and {v.dtype}")
    for name, extra in (
        ("present_u", present_u),
        ("present_v", present_v),
        ("content_u", content_u),
        ("content_v", content_v),
    ):
        if extra is not None and len(extra) != len(u):
            raise ValueError(f"{name} has {len(extra)} entries for {len(u)} items")
    with torch.no_grad():
        layout = lay_out(len(u), u.device, present_u, present_v, content_u, content_v)
    if layout.pairs == 0:
        # Empty sums, not products with 0: float16 sums overflow, and absent rows may hold anything.
        return u[:0].sum() + v[:0].sum() + 0.0 * log_scale.sum()
    if not layout.pairs == len(layout.u_order) == len(layout.v_order) == len(u):
        u, v = u[layout.u_order], v[layout.v_order]
    loss: Tensor = _TiledInfoNCE.apply(u, v, log_scale, layout)  # type: ignore[no-untyped-call]
    return loss


@dataclass(frozen=True)
class _Tile:
    """Scores of some rows against some columns; false negatives are -inf."""

    rows: slice
    columns: slice
    scores: Tensor
    highest: Tensor
    narrow: bool

    @property
    def on_diagonal(self) -> bool:
        """Whether the tile holds positives; tiles are cut alike in both directions."""
        return bool(self.rows.start == self.columns.start)


class _Scores:
    """The tiles of S, one at a time in a fixed order and in one buffer."""

    def __init__(self, u: Tensor, v: Tensor, log_scale: Tensor, layout: Layout) -> None:
        self.dtype = torch.promote_types(u.dtype, torch.float32)
        self.scale = log_scale.to(self.dtype).exp()
        self.u, self.v, self.layout = u, v, layout
        self.tile = TILE.get(u.device.type, TILE["cuda"])
        self.size = max(len(u), len(v))
        side = min(self.tile, self.size)
        self._buffer = torch.empty(side * side, dtype=self.dtype, device=u.device)

    def scaled_u(self, rows: slice) -> Tensor:
        """Return exp(log_scale) u for some rows, in the accumulation type."""
        return self.u[rows].to(self.dtype) * self.scale

    def __iter__(self) -> Any:
        pairs = self.layout.pairs
        for start in range(0, len(self.u), self.tile):
            rows = slice(start, min(start + self.tile, len(self.u)))
            scaled = self.scaled_u(rows)
            # Rows without a partner meet only the columns that have one.
            columns_end = len(self.v) if start < pairs else pairs
            for first in range(0, columns_end, self.tile):
                yield self._score(rows, scaled, slice(first, min(first + self.tile, columns_end)))

    def _score(self, rows: slice, scaled: Tensor, columns: slice) -> _Tile:
        v = self.v[columns].to(self.dtype)
        scores = self._buffer[: len(scaled) * len(v)].view(len(scaled), len(v))
        torch.mm(scaled, v.t(), out=scores)
        lowest, highest = torch.aminmax(scores)
        narrow = bool(highest - lowest < NARROW_RANGE)
        masked = self.layout.false_negatives(rows, columns)
        if masked is not None:
            scores[masked[:, 0], masked[:, 1]] = -torch.inf
        return _Tile(rows, columns, scores, highest, narrow)


class _RunningSum:
    """Log-sum-exp of rows (or columns) that arrive tile by tile, kept as (reference, sum of exp(s - reference))."""

    def __init__(self, size: int, like: Tensor) -> None:
        self.reference = like.new_full((size,), torch.finfo(like.dtype).min)
        self.total = like.new_zeros(size)

    def add(self, where: slice, reference: Tensor, total: Tensor) -> None:
        old = self.reference[where]
        # A row whose entries in the tile are all false negatives must not take the tile's reference, which may be
        # so far above its own scores that these would vanish.
        reference = torch.where(total > 0, reference, old)
        new = torch.maximum(old, reference)
        self.total[where] = self.total[where] * (old - new).exp() + total * (reference - new).exp()
        self.reference[where] = new

    def log(self) -> Tensor:
        return self.reference + self.total.log()


class _TiledInfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, log_scale: Tensor, layout: Layout) -> Tensor:
        scores = _Scores(u, v, log_scale, layout)
        rows, columns = _RunningSum(len(u), scores.scale), _RunningSum(len(v), scores.scale)
        positives = scores.scale.new_empty(layout.pairs)
        for tile in scores:
            if tile.on_diagonal:
                diagonal = tile.scores.diagonal()[: max(layout.pairs - tile.rows.start, 0)]
                positives[tile.rows.start : tile.rows.start + len(diagonal)] = diagonal
            _accumulate(tile, rows, columns)
        # Rows without a partner have no loss: an infinite log-sum-exp makes their probabilities 0.
        lse_rows, lse_columns = rows.log(), columns.log()
        lse_rows[layout.pairs :] = torch.inf
        lse_columns[layout.pairs :] = torch.inf
        ctx.save_for_backward(u, v, log_scale, lse_rows, lse_columns)
        ctx.layout = layout
        pairs = layout.pairs
        return ((lse_rows[:pairs] - positives).mean() + (lse_columns[:pairs] - positives).mean()) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        u, v, log_scale, lse_rows, lse_columns = ctx.saved_tensors
        scores = _Scores(u, v, log_scale, ctx.layout)
        grad_u = torch.zeros(u.shape, dtype=scores.dtype, device=u.device)
        grad_v = torch.zeros(v.shape, dtype=scores.dtype, device=v.device)
        weights = torch.empty_like(scores._buffer)
        for tile in scores:
            change = _probabilities(tile, lse_rows[tile.rows], lse_columns[tile.columns], weights)
            if tile.on_diagonal:
                change.diagonal()[: max(ctx.layout.pairs - tile.rows.start, 0)].sub_(2)
            grad_u[tile.rows].addmm_(change, v[tile.columns].to(scores.dtype))
            grad_v[tile.columns].addmm_(change.t(), scores.scaled_u(tile.rows))
        factor = grad / (2 * ctx.layout.pairs)
        grad_u *= scores.scale * factor
        grad_v *= factor
        grad_scale = torch.linalg.vecdot(u.to(scores.dtype), grad_u).sum().to(log_scale.dtype)
        return grad_u.to(u.dtype), grad_v.to(v.dtype), grad_scale.reshape(log_scale.shape), None


def _accumulate(tile: _Tile, rows: _RunningSum, columns: _RunningSum) -> None:
    """Add a tile to both log-sum-exps; the tile's scores are overwritten."""
    scores = tile.scores
    if tile.narrow:
        scores.sub_(tile.highest).exp_()
        rows.add(tile.rows, tile.highest, scores.sum(dim=1))
        columns.add(tile.columns, tile.highest, scores.sum(dim=0))
        return
    # A row whose entries in this tile are all false negatives has no maximum.
    lowest = torch.finfo(scores.dtype).min
    of_rows = scores.amax(dim=1).clamp_min(lowest)
    of_columns = scores.amax(dim=0).clamp_min(lowest)
    rows.add(tile.rows, of_rows, _exp_(scores - of_rows[:, None]).sum(dim=1))
    columns.add(tile.columns, of_columns, _exp_(scores.sub_(of_columns)).sum(dim=0))


def _probabilities(tile: _Tile, lse_rows: Tensor, lse_columns: Tensor, buffer: Tensor) -> Tensor:
    """Return the sum of both softmaxes of a tile; the tile's scores are overwritten."""
    scores = tile.scores
    other = buffer[: scores.numel()].view(scores.shape)
    if tile.narrow:
        # Beyond the upper clamp lie only rows and columns whose entries in this tile are all 0.
        by_row = _exp_((tile.highest - lse_rows).clamp_max(LARGEST_FACTOR), SMALLEST_FACTOR)
        by_column = _exp_((tile.highest - lse_columns).clamp_max(LARGEST_FACTOR), SMALLEST_FACTOR)
        torch.add(by_row[:, None], by_column, out=other)
        return scores.sub_(tile.highest).exp_().mul_(other)
    torch.sub(scores, lse_rows[:, None], out=other)
    return _exp_(scores.sub_(lse_columns)).add_(_exp_(other))


def _exp_(exponents: Tensor, smallest: float = SMALLEST_EXPONENT) -> Tensor:
    """Exponentiate in place; what would be too small becomes exactly 0."""
    return torch.threshold_(exponents, smallest, -torch.inf).exp_()
