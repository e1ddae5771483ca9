"""Ways to a joint space, each `PairedLatents -> JointSpace`, so that all are measured by the same code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fusemix.adapters.linear import LinearAdapter
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.objective import Edge
from fusemix.training.statistics import standardisation
from fusemix.training.validation import Validation

Aligner = Callable[[PairedLatents], JointSpace]

PENALTIES = tuple(10.0**exponent for exponent in range(-2, 7))


def ridge(latents: PairedLatents, a: str, b: str, penalties: Sequence[float] = PENALTIES) -> JointSpace:
    """Map the latents of `a` to the centred latents of `b` by ridge regression.

    Latents of `a` are standardised, those of `b` centred, both by the training split; an item with several rows
    counts once, with their mean.  The penalty is the one with the best mean reciprocal rank on the validation split.

    Args:
        latents: items with the splits `train` and `val`.
        a: modality that is mapped.
        b: modality whose latents are the joint space.
        penalties: squared-norm penalties to choose from, relative to the identity on standardised latents.
    """
    train = latents.split("train")
    mean_a, std_a = standardisation([train[a]])
    mean_b, std_b = standardisation([train[b]])
    x, y = _item_means(train, a), _item_means(train, b)
    both = (train[a].counts > 0) & (train[b].counts > 0)
    source = LinearAdapter(len(mean_a), len(mean_b))
    source.standardise_by(mean_a, std_a)
    target = LinearAdapter(len(mean_b), len(mean_b))
    target.standardise_by(mean_b, torch.ones_like(std_b))
    with torch.no_grad():
        target.linear.weight.copy_(torch.eye(len(mean_b)))
    space = JointSpace({a: source, b: target}, specs={m: latents[m].spec for m in (a, b)})
    standardised = ((x[both] - mean_a) * source.inverse_std).double()
    gram, cross = standardised.T @ standardised, standardised.T @ (y[both] - mean_b).double()
    validation = Validation(latents.split("val"), [Edge(a, b)])
    tried = []
    for penalty in penalties:
        solution = torch.linalg.solve(gram + penalty * torch.eye(len(gram), dtype=torch.float64), cross)
        with torch.no_grad():
            source.linear.weight.copy_(solution.T)
        tried.append((validation(space)["mrr"], penalty, source.linear.weight.detach().clone()))
    _, _, best = max(tried, key=lambda attempt: attempt[0])
    with torch.no_grad():
        source.linear.weight.copy_(best)
    return space.eval()


def _item_means(latents: PairedLatents, modality: str) -> Tensor:
    """Return the mean latent of each item, (I, D) float32; zeros where it has none."""
    rows = latents[modality]
    sums = torch.zeros(len(latents), rows.values.shape[1]).index_add_(
        0, rows.item_of_row, rows.values[rows.rows].float()
    )
    return sums / rows.counts.clamp_min(1)[:, None]
