"""The gradients of one step: in one pass, or in two where the activations of the whole batch would be too many.

A contrastive loss needs the embeddings of a whole batch at once, but their activations only one by one.  So, as in
GradCache (arXiv 2101.06983): a first pass without gradients gives the embeddings slice by slice, the loss gives their
gradients, and a second pass runs each slice again and carries its gradients on to the weights.  Each slice of each
modality has a seed of its own, so that dropout and noise are the same in both passes, and do not change where another
modality is left out.  The sum is that of one pass over the same slices; without dropout and noise, the whole batch's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix.batch import LatentBatch
from fusemix.joint_space import JointSpace
from fusemix.objective import Objective
from fusemix.randomness import derive_seed


@dataclass(frozen=True)
class Outcome:
    """What a batch gave besides gradients, none of it with a graph.

    Attributes:
        loss: scalar.
        edges: edge -> its loss, unweighted.
        embeddings: modality -> (B, dim); zeros where the item lacks the modality.
    """

    loss: Tensor
    edges: Mapping[str, Tensor]
    embeddings: Mapping[str, Tensor]


def backpropagate(
    space: JointSpace,
    objective: Objective,
    batch: LatentBatch,
    scaler: torch.amp.GradScaler,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    micro_batch: int | None = None,
) -> Outcome:
    """Add the gradients of a batch's loss to those of the parameters, as the scaler scales them.

    Args:
        space: adapters, temperatures and biases, on the batch's device.
        objective: the loss.
        batch: B items; adapters see only those that have their modality.
        scaler: scales the loss, where it is enabled.
        seed: decides dropout and noise; other for every step.
        dtype: type in which the adapters compute; embeddings and loss are float32.
        micro_batch: items of a slice; with fewer than B, two passes.
    """
    passes = _Passes(space, batch, seed, dtype, micro_batch or len(batch))
    # torch's global generators are what dropout draws from.
    with torch.random.fork_rng(devices=[batch.parents.device] if batch.parents.is_cuda else []):
        if not passes.several:
            embeddings = passes.embeddings()
            loss, edges = objective(embeddings, batch, space)
            scaler.scale(loss).backward()
        else:
            with torch.no_grad():
                embeddings = passes.embeddings()
            for embedding in embeddings.values():
                embedding.requires_grad_()
            loss, edges = objective(embeddings, batch, space)
            scaler.scale(loss).backward()
            passes.carry_on(embeddings)
    return Outcome(
        loss.detach(),
        {name: part.detach() for name, part in edges.items()},
        {name: embedding.detach() for name, embedding in embeddings.items()},
    )


class _Passes:
    """The slices of a batch, modality by modality, and how they run through the adapters."""

    def __init__(self, space: JointSpace, batch: LatentBatch, seed: int, dtype: torch.dtype, size: int) -> None:
        self.space, self.batch, self.seed, self.dtype = space, batch, seed, dtype
        self.slices = {name: _slices(batch.present[name], size) for name in space.modalities}
        self.several = any(len(slices) > 1 for slices in self.slices.values())

    def embeddings(self) -> dict[str, Tensor]:
        """Return the (B, dim) embeddings of each modality."""
        found = {}
        for name, slices in self.slices.items():
            found[name] = self.batch.values[name].new_zeros(len(self.batch), self.space.dim)
            for number in range(len(slices)):
                found[name][slices[number]] = self._embed(name, number)
        return found

    def carry_on(self, embeddings: Mapping[str, Tensor]) -> None:
        """Run every slice again and carry the gradients of its embeddings on to the weights."""
        for name, slices in self.slices.items():
            gradient = embeddings[name].grad
            if gradient is None or not any(weight.requires_grad for weight in self.space.adapter(name).parameters()):
                continue
            for number in range(len(slices)):
                self._embed(name, number).backward(gradient[slices[number]])

    def _embed(self, name: str, number: int) -> Tensor:
        latents = self.batch.values[name][self.slices[name][number]]
        _seed_global_generators(latents.device, derive_seed(self.seed, name, number))
        # A context of its own, because weights that autocast converted without gradients would be used again.
        with torch.autocast(latents.device.type, self.dtype, enabled=self.dtype != torch.float32):
            embeddings: Tensor = self.space(name, latents)
        return embeddings


def _slices(present: Tensor, size: int) -> list[slice | Tensor]:
    """Return positions of the present items, cut into parts of `size`: a range where all are present."""
    positions = present.nonzero()[:, 0]
    if len(positions) < len(present):
        return list(positions.split(size))
    return [slice(start, start + size) for start in range(0, len(present), size)]


def _seed_global_generators(device: torch.device, seed: int) -> None:
    # Not torch.manual_seed: it seeds every other device too, and where these are not in use remembers each call.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
