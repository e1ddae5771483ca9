"""What closed-form aligners share: adapters from matrices, principal axes, and the choice between joint spaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fusemix.adapters.linear import LinearAdapter
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.objective import Edge
from fusemix.training.validation import Validation

# Below it an axis of float16 latents is rounding, and its direction loses the digits that float64 has to spare.
RELATIVE_VARIANCE_OF_NOTHING = 1e-10


def linear_adapter(matrix: Tensor, mean: Tensor, std: Tensor | None = None) -> LinearAdapter:
    """Return the adapter y = matrix ((x - mean) / std).

    Args:
        matrix: (joint_dim, D).
        mean: (D,) what is subtracted.
        std: (D,) what is divided by; 1 if left out.
    """
    adapter = LinearAdapter(matrix.shape[1], matrix.shape[0])
    adapter.standardise_by(mean, torch.ones_like(mean) if std is None else std)
    with torch.no_grad():
        adapter.linear.weight.copy_(matrix)
    return adapter


def principal_axes(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variances along the principal axes, (r,), largest first, and the axes, (D, r).

    From the smaller of the two Gram matrices, so that neither many items nor many dimensions cost much; axes along
    which nothing varies are left out.

    Args:
        centred: (P, D) float64 latents whose mean was subtracted.
    """
    pairs, dim = centred.shape
    wide = dim > pairs
    gram = (centred @ centred.T if wide else centred.T @ centred) / pairs
    variances, vectors = (part.flip(-1) for part in torch.linalg.eigh(gram))
    kept = variances > RELATIVE_VARIANCE_OF_NOTHING * variances[0].clamp_min(torch.finfo(torch.float64).tiny)
    variances, vectors = variances[kept], vectors[:, kept]
    return variances, centred.T @ vectors / (pairs * variances).sqrt() if wide else vectors


def linear_space(latents: PairedLatents, adapters: Mapping[str, LinearAdapter]) -> JointSpace:
    """Return the joint space of such adapters, for the encoders of the latents."""
    return JointSpace(adapters, specs={name: latents[name].spec for name in adapters}).eval()


def best_of(
    attempts: Sequence[Callable[[], JointSpace]], latents: PairedLatents, a: str, b: str
) -> tuple[int, JointSpace]:
    """Return the joint space with the best mean reciprocal rank on the validation split, the first of equals.

    Where there is but one, nothing is measured.

    Returns:
        Which of the attempts gave it, and the joint space.
    """
    if len(attempts) == 1:
        return 0, attempts[0]()
    validation = Validation(latents.split("val"), [Edge(a, b)])
    best, highest = None, -1.0
    for number, attempt in enumerate(attempts):
        space = attempt()
        mrr = validation(space)["mrr"]
        if best is None or mrr > highest:
            best, highest = (number, space), mrr
    assert best is not None, "an aligner has something to choose from"  # noqa: S101
    return best
