"""Canonical correlation analysis with a penalty, its directions weighted by how much they correlate.

Written from the formula: scikit-learn's CCA iterates, has no penalty, and without one every direction correlates
perfectly as soon as there are fewer pairs than dimensions, which is the rule for latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents

from .linear_maps import best_of, linear_adapter, linear_space, principal_axes
from .pairs import training_pairs

PENALTIES = (1.0, 0.1, 10.0, 100.0)


def cca(latents: PairedLatents, a: str, b: str, penalties: Sequence[float] = PENALTIES) -> JointSpace:
    """Map both modalities to the directions in which they correlate.

    With latents standardised by the training split, their second moments C over the pairs, and a penalty e (Vinod,
    1976):

        U diag(r) V' = (C_aa + e)^-1/2 C_ab (C_bb + e)^-1/2
        embedding of x_a: diag(r)^1/2 U' (C_aa + e)^-1/2 x_a, and of x_b with V

    so that an inner product sums the canonical variates' products, each times its correlation, as in Canonical
    Similarity Analysis (arXiv 2410.07610): directions that do not correlate fade out instead of being cut off.

    Args:
        latents: items with the splits `train` and `val`; an item with several rows counts once, with their mean.
        a: one modality.
        b: the other.
        penalties: e to choose from by the mean reciprocal rank on the validation split, in units of the variance of
            a standardised dimension.

    Raises:
        FusemixError: where no training item has both modalities.
    """
    sides = dict(zip((a, b), training_pairs(latents.split("train"), a, b), strict=True))
    values = {name: side.standardised for name, side in sides.items()}
    axes = {name: principal_axes(rows) for name, rows in values.items()}
    across = (values[a] @ axes[a][1]).T @ (values[b] @ axes[b][1]) / len(values[a])

    def attempt(penalty: float) -> JointSpace:
        whitening: dict[str, Tensor] = {name: (variances + penalty).rsqrt() for name, (variances, _) in axes.items()}
        left, correlations, right = torch.linalg.svd(
            whitening[a][:, None] * across * whitening[b], full_matrices=False
        )
        found = {a: left, b: right.T}
        matrices = {
            name: (axes[name][1] * whitening[name] @ (found[name] * correlations.sqrt())).T for name in (a, b)
        }
        return linear_space(
            latents, {name: linear_adapter(matrices[name], side.mean, side.std) for name, side in sides.items()}
        )

    return best_of([partial(attempt, penalty) for penalty in penalties], latents, a, b)[1]
