"""What to tell of a step whose numbers are not finite: where they broke, and by which items."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fusemix.batch import LatentBatch
from fusemix.joint_space import JointSpace

ROWS_TO_NAME = 3


def of_batch(batch: LatentBatch, embeddings: Mapping[str, Tensor], item_ids: Callable[[Tensor], list[str]]) -> str:
    """Describe each modality of a batch whose loss is not finite: norms, and the items to look at.

    These are items whose embedding is not finite; where all are or none is, those of the largest latents.

    Args:
        batch: what the step saw.
        embeddings: modality -> (B, dim) what became of it.
        item_ids: names the items at positions.
    """
    told = []
    for name, embedding in embeddings.items():
        present, norms = batch.present[name], batch.values[name].norm(dim=1)
        broken = ~torch.isfinite(embedding).all(dim=1)
        count, items = int(broken.sum()), int(present.sum())
        # argsort takes what is not a number for the largest.
        rows = broken.nonzero()[:, 0] if 0 < count < items else norms.argsort(descending=True)
        ids = item_ids(batch.parents[rows[:ROWS_TO_NAME]].flatten())
        told.append(
            f"{name}: norms up to {float(norms.max()):.3g} of latents and {float(embedding.norm(dim=1).max()):.3g} of"
            f" embeddings, {count} of {items} embeddings not finite, look at {', '.join(ids)}"
        )
    return "; ".join(told)


def of_gradients(space: JointSpace) -> str:
    """Return the name of the first parameter whose gradient is not finite, or of the one whose is the largest."""
    gradients = {name: weight.grad for name, weight in space.named_parameters() if weight.grad is not None}
    largest = {name: float(gradient.abs().max()) for name, gradient in gradients.items()}
    broken = [name for name, value in largest.items() if not value < torch.inf]
    return broken[0] if broken else max(largest, key=largest.__getitem__)
