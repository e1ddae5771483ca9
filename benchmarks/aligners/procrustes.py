"""Orthogonal Procrustes: the rotation that brings one modality's latents closest to the other's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from fusemix.errors import needs_extra
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents

from .linear_maps import best_of, linear_adapter, linear_space, principal_axes
from .pairs import training_pairs

SHARES = (1.0, 0.5, 0.25, 0.125)


def procrustes(latents: PairedLatents, a: str, b: str, shares: Sequence[float] = SHARES) -> JointSpace:
    """Rotate the principal components of `a` onto those of `b` (Schoenemann, 1966).

    Latents are centred by the training split and not scaled, because a rotation keeps what an encoder means by near
    and far.  A rotation needs equal dimensions, so both sides are reduced to their first principal components, as
    many as validate best; an item with several rows counts once, with their mean.

    Args:
        latents: items with the splits `train` and `val`.
        a: modality that is rotated.
        b: modality whose principal components are the joint space.
        shares: numbers of components to choose from, as parts of the smaller side's: of its dimension, or of the
            pairs where they are fewer.

    Raises:
        FusemixError: where no training item has both modalities, or scipy is missing.
    """
    with needs_extra("probes", "orthogonal Procrustes"):
        from scipy.linalg import orthogonal_procrustes
    source, target = training_pairs(latents.split("train"), a, b)
    (_, of_a), (_, of_b) = principal_axes(source.centred), principal_axes(target.centred)
    most = min(of_a.shape[1], of_b.shape[1])

    def attempt(share: float) -> JointSpace:
        count = max(round(share * most), 1)
        axes_a, axes_b = of_a[:, :count], of_b[:, :count]
        rotation, _ = orthogonal_procrustes((source.centred @ axes_a).numpy(), (target.centred @ axes_b).numpy())
        matrices = {a: (axes_a @ torch.from_numpy(rotation)).T, b: axes_b.T}
        return linear_space(
            latents, {a: linear_adapter(matrices[a], source.mean), b: linear_adapter(matrices[b], target.mean)}
        )

    return best_of([partial(attempt, share) for share in shares], latents, a, b)[1]
