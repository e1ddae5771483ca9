"""Ridge regression of one modality's latents on the other's: the plain linear map that every method should beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents

from .linear_maps import best_of, linear_adapter, linear_space
from .pairs import training_pairs

PENALTIES = tuple(10.0**exponent for exponent in range(-2, 7))


def ridge(
    latents: PairedLatents, a: str, b: str, penalties: Sequence[float] = PENALTIES, *, refit: bool = False
) -> JointSpace:
    """Map the latents of `a` to the centred latents of `b` by ridge regression.

    Latents of `a` are standardised, those of `b` centred, both by the training split; an item with several rows
    counts once, with their mean.  The penalty is the one with the best mean reciprocal rank on the validation split.

    Args:
        latents: items with the splits `train` and `val`.
        a: modality that is mapped.
        b: modality whose latents are the joint space.
        penalties: squared-norm penalties to choose from, relative to the identity on standardised latents.
        refit: whether the map with the chosen penalty is fitted anew, on the items of both splits.

    Raises:
        FusemixError: where no training item has both modalities.
    """
    solved = _solutions(latents.split("train"), a, b)
    chosen, space = best_of([partial(solved, penalty) for penalty in penalties], latents, a, b)
    return _solutions(latents.split("train", "val"), a, b)(penalties[chosen]) if refit else space


def _solutions(train: PairedLatents, a: str, b: str) -> Callable[[float], JointSpace]:
    """Return what solves the regression for a penalty."""
    source, target = training_pairs(train, a, b)
    x, y = source.standardised, target.centred
    # Of two forms of one solution, the one with the smaller matrix: (x'x + p)^-1 x'y = x'(xx' + p)^-1 y.
    wide = x.shape[1] > x.shape[0]
    gram, right = (x @ x.T, y) if wide else (x.T @ x, x.T @ y)

    def solve(penalty: float) -> JointSpace:
        solution = torch.linalg.solve(gram + penalty * torch.eye(len(gram), dtype=torch.float64), right)
        matrix = x.T @ solution if wide else solution
        adapters = {
            a: linear_adapter(matrix.T, source.mean, source.std),
            b: linear_adapter(torch.eye(len(target.mean)), target.mean),
        }
        return linear_space(train, adapters)

    return solve
