"""From rows of tables to a batch: what a step needs is sent to the device, and mixed there.

Each parent's latents are picked by one `index_select` a table and mixed in place, so that a batch is never held in
more than two copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix.batch import LatentBatch


@dataclass(frozen=True)
class Piece:
    """What one table gives to a batch.

    Attributes:
        values: (R, D) latents as they are stored.
        index: (n,) rows of `values`.
        places: (n,) which of the batch's pairs get them; None where all do, in order.
    """

    values: Tensor
    index: Tensor
    places: Tensor | None

    def moved(self, move: Callable[[Tensor], Tensor]) -> Piece:
        """Return the piece with each of its tensors moved."""
        return Piece(move(self.values), move(self.index), None if self.places is None else move(self.places))


@dataclass(frozen=True)
class Ingredients:
    """All that makes up a batch of B pairs; `present`, `parents` and `content` are those of the batch.

    Attributes:
        pieces: modality -> the pieces of each parent, one parent or two.
        dims: modality -> D.
        weight: of the first parent, where there are two: a number, or (B, 1).
    """

    pieces: Mapping[str, Sequence[Sequence[Piece]]]
    dims: Mapping[str, int]
    present: Mapping[str, Tensor]
    parents: Tensor
    content: Mapping[str, Tensor]
    weight: float | Tensor

    def moved(self, move: Callable[[Tensor], Tensor]) -> Ingredients:
        """Return the ingredients with each of their tensors moved."""
        return Ingredients(
            {
                name: [[piece.moved(move) for piece in parent] for parent in all_]
                for name, all_ in self.pieces.items()
            },
            self.dims,
            {name: move(mask) for name, mask in self.present.items()},
            move(self.parents),
            {name: move(hashes) for name, hashes in self.content.items()},
            move(self.weight) if isinstance(self.weight, Tensor) else self.weight,
        )


def assemble(given: Ingredients) -> LatentBatch:
    """Return the batch, mixed where its pairs have two parents, on the device where its ingredients are."""
    values = {}
    for name, parents in given.pieces.items():
        first, *partner = [_brought_together(pieces, given, name) for pieces in parents]
        # The partner's copy takes the result.
        values[name] = partner[0].lerp_(first, given.weight) if partner else first
    return LatentBatch(values, given.present, given.parents, given.content)


def _brought_together(pieces: Sequence[Piece], given: Ingredients, name: str) -> Tensor:
    if len(pieces) == 1 and pieces[0].places is None:
        return pieces[0].values.index_select(0, pieces[0].index).float()
    values = torch.zeros(len(given.parents), given.dims[name], device=given.parents.device)
    for piece in pieces:
        assert piece.places is not None  # noqa: S101  # one that fills all pairs is alone
        values.index_copy_(0, piece.places, piece.values.index_select(0, piece.index).float())
    return values


class Mover:
    """Sends ingredients to the device on a stream of its own, beside what the device computes; a CPU has all at hand.

    Args:
        device: where training runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def send(self, given: Ingredients) -> tuple[Ingredients, torch.cuda.Event | None]:
        """Begin to copy what is not on the device; the event says when that is done."""
        if self._stream is None:
            return given, None
        with torch.cuda.stream(self._stream):
            return given.moved(self._sent), self._stream.record_event()

    def receive(self, given: Ingredients, sent: torch.cuda.Event | None) -> Ingredients:
        """Have the device wait for the copies before it computes with them."""
        if sent is None:
            return given
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(sent)

        def used_here(tensor: Tensor) -> Tensor:
            # Else its memory could go to the next copy while this stream still reads it.
            tensor.record_stream(stream)
            return tensor

        return given.moved(used_here)

    def _sent(self, tensor: Tensor) -> Tensor:
        if tensor.is_cuda:
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)
