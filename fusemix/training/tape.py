"""What autograd keeps of an adapter's forward pass, and what its passes take besides, in bytes per item.

Counted from the layers as `fusemix.adapters` has them.  Matrices are multiplied in the type of autocast; layer norms,
residual sums and all that follows the last matrix are float32.  Autograd keeps the input of a matrix product, the
input of a layer norm and two numbers an item, the input of an activation, both factors of a gate, and the mask of a
dropout: a byte an entry from a GPU's fused kernel, a number an entry on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fusemix.adapters.settings import AdapterSettings

FLOAT = 4
NORM_STATISTICS = 2 * FLOAT


@dataclass(frozen=True)
class Stage:
    """A part of an adapter; all but the weights are bytes an item.

    Attributes:
        kept: what autograd keeps from the stage's forward to its backward pass, its input included.
        forward: what the forward pass takes beside that, at most.
        backward: what the backward pass of its last matrix takes beside that, the gradient of its output included.
        inference: what a forward pass without autograd takes, at most, its input included.
        weights: number of parameters.
        last_weights: of these, those of its last matrix.
        later: what the rest of the backward pass takes beside `kept`, where that may be more.
    """

    kept: int
    forward: int
    backward: int
    inference: int
    weights: int = 0
    last_weights: int = 0
    later: int = 0


def tape(shape: AdapterSettings, dim: int, joint_dim: int, *, size: int, fused_dropout: bool) -> list[Stage]:
    """Return the stages of an adapter in the order of its forward pass, from standardised latents to embeddings.

    Args:
        shape: kind and shape of the adapter.
        dim: of the latents.
        joint_dim: of the joint space.
        size: bytes of a number in the type in which matrices are multiplied, 4 or 2.
        fused_dropout: whether dropout keeps a byte an entry, as on a GPU.
    """
    if shape.kind == "identity":
        # Nothing is trained, so nothing is kept.
        return [Stage(0, 2 * FLOAT * dim, 0, 3 * FLOAT * dim)]
    if shape.kind == "linear":
        return [_linear(dim, joint_dim, size), _normalisation(joint_dim)]
    width = min(dim, shape.max_width or dim)
    mask = shape.expansion * width * (1 if fused_dropout else size) if shape.dropout else 0
    make = _mlp_block if shape.kind == "mlp" else _gated_block
    before = [_narrowing(dim, width, size)] if width < dim else []
    before += [make(width, shape.expansion * width, size, mask)] * shape.depth
    return [*before, _norm_and_linear(width, joint_dim, size, first=not before), _normalisation(joint_dim)]


def _mlp_block(dim: int, hidden: int, size: int, mask: int) -> Stage:
    """X + W2 dropout(gelu(W1 norm(x))): kept are x, norm(x), the input of gelu, the mask, and the input of W2."""
    wide, narrow = size * hidden, size * dim
    return Stage(
        kept=FLOAT * dim + NORM_STATISTICS + narrow + 2 * wide + mask,
        forward=max(wide if mask else 0, FLOAT * dim + narrow),
        backward=FLOAT * dim + _half(narrow, size) + wide,
        inference=FLOAT * (dim + 2 * hidden),
        weights=2 * hidden * dim + hidden + 3 * dim,
        last_weights=hidden * dim + dim,
    )


def _gated_block(dim: int, hidden: int, size: int, mask: int) -> Stage:
    """X + W2 dropout(silu(gate) * value): kept as in the MLP's block, and both gate and value and silu(gate)."""
    wide, narrow = size * hidden, size * dim
    return Stage(
        kept=FLOAT * dim + NORM_STATISTICS + narrow + 4 * wide + mask,
        forward=max(wide if mask else 0, FLOAT * dim + narrow),
        backward=FLOAT * dim + _half(narrow, size) + wide,
        inference=FLOAT * (dim + 4 * hidden),
        weights=3 * hidden * dim + 2 * hidden + 3 * dim,
        last_weights=hidden * dim + dim,
        # The product, when the mask and the input of W2 are gone.
        later=FLOAT * dim + 2 * wide - mask,
    )


def _norm_and_linear(dim: int, joint_dim: int, size: int, *, first: bool) -> Stage:
    """W norm(x): kept are x and norm(x); where no block stands before it, x needs no gradient."""
    return Stage(
        kept=FLOAT * dim + NORM_STATISTICS + size * dim,
        forward=_half(FLOAT * dim, size) + size * joint_dim,
        backward=FLOAT * joint_dim + _half(size * joint_dim, size) + size * dim,
        inference=FLOAT * (2 * dim + joint_dim),
        weights=dim * joint_dim + joint_dim + 2 * dim,
        last_weights=dim * joint_dim + joint_dim,
        # The layer norm, when norm(x) is gone.
        later=(FLOAT - size) * dim + (0 if first else FLOAT * dim),
    )


def _linear(dim: int, joint_dim: int, size: int) -> Stage:
    """W x: kept is x, which needs no gradient."""
    return Stage(
        kept=size * dim,
        forward=_half(FLOAT * dim, size) + size * joint_dim,
        backward=FLOAT * joint_dim + _half(size * joint_dim, size),
        inference=FLOAT * (dim + joint_dim),
        weights=dim * joint_dim,
        last_weights=dim * joint_dim,
    )


def _narrowing(dim: int, width: int, size: int) -> Stage:
    """W x + b, then in float32: kept is x, which needs no gradient."""
    plain = _linear(dim, width, size)
    forward = plain.forward + _half(FLOAT * width, size)
    return replace(plain, forward=forward, weights=plain.weights + width, last_weights=plain.last_weights + width)


def _normalisation(joint_dim: int) -> Stage:
    """Y / |y|: kept are y and its norm, before and after the clamp; backwards the quotient takes four tensors."""
    width = FLOAT * joint_dim
    return Stage(kept=width + 2 * FLOAT, forward=width, backward=4 * width, inference=2 * width)


def _half(size_of_copy: int, size: int) -> int:
    """Return what a copy takes that is only made where matrices are multiplied in another type than float32."""
    return size_of_copy if size < FLOAT else 0
