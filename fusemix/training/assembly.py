"""From rows of tables to a batch: what a step needs is sent to the device, and mixed there.

Latents go straight to their places in the batch, and a partner's are mixed into those that are there, some at a time:
a second copy of a batch costs as much memory as the batch, and on a CPU more time than the mixing itself, for memory
that is touched for the first time is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix.batch import LatentBatch

BYTES_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 28}
"""So much of a batch is mixed at once: what a CPU's cache holds, and what keeps a GPU busy."""


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
        """Return the ingredients with each of their tensors moved, those that several pieces have in common once."""
        done: dict[int, Tensor] = {}

        def once(tensor: Tensor) -> Tensor:
            if id(tensor) not in done:
                done[id(tensor)] = move(tensor)
            return done[id(tensor)]

        return Ingredients(
            {
                name: [[piece.moved(once) for piece in parent] for parent in parents]
                for name, parents in self.pieces.items()
            },
            self.dims,
            {name: once(mask) for name, mask in self.present.items()},
            once(self.parents),
            {name: once(hashes) for name, hashes in self.content.items()},
            once(self.weight) if isinstance(self.weight, Tensor) else self.weight,
        )


def assemble(given: Ingredients) -> LatentBatch:
    """Return the batch, mixed where its pairs have two parents, on the device where its ingredients are."""
    values = {}
    for name, (first, *partner) in given.pieces.items():
        whole = torch.zeros if any(piece.places is not None for piece in first) or not first else torch.empty
        values[name] = whole(len(given.parents), given.dims[name], device=given.parents.device)
        for piece in first:
            _put(piece, values[name])
        for piece in partner[0] if partner else ():
            _put(piece, values[name], given.weight)
    return LatentBatch(values, given.present, given.parents, given.content)


def _put(piece: Piece, values: Tensor, weight: float | Tensor | None = None) -> None:
    """Write latents where they belong; where there is a weight, mix them with what is there, which has the weight."""
    at_once = max(1, BYTES_AT_ONCE[values.device.type] // (4 * values.shape[1]))
    for start in range(0, len(piece.index), at_once):
        chunk = slice(start, start + at_once)
        latents = piece.values.index_select(0, piece.index[chunk])
        places = chunk if piece.places is None else piece.places[chunk]
        there = values[places]
        if weight is None:
            there.copy_(latents)
        else:
            torch.lerp(latents.float(), there, weight[places] if isinstance(weight, Tensor) else weight, out=there)
        if piece.places is not None:
            # Places that lie apart were copied, those in a row are the batch's own memory.
            values[places] = there


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
