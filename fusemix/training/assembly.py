"""From rows of tables to a batch: what a step needs is sent to the device, and mixed there.

A batch is made some pairs at a time: while a CPU still holds a few pairs' latents in its cache, those of the partners
are gathered and mixed into them.  So each latent is read once and each mixed one written once, and there is never a
second copy of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix.batch import LatentBatch

BYTES_AT_ONCE = {"cpu": 1 << 23, "cuda": 1 << 26}
"""So much of a batch is made at once: what a CPU's caches hold, and what keeps a GPU busy."""


@dataclass(frozen=True)
class Piece:
    """What one table gives to a batch.

    Attributes:
        values: (R, D) latents as they are stored.
        index: (n,) rows of `values`.
        places: (n,) which of the batch's pairs get them, increasing; None where all do.
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


def assemble(given: Ingredients, memory: Mapping[str, Tensor] | None = None) -> LatentBatch:
    """Return the batch, mixed where its pairs have two parents, on the device where its ingredients are.

    Args:
        given: what the batch is made of.
        memory: modality -> (B, D) float32 to be written over: the latents of a batch that is no longer needed, for
            memory that a process touches for the first time costs a CPU as much as the mixing itself.
    """
    values = {}
    for name, dim in given.dims.items():
        shape, device = (len(given.parents), dim), given.parents.device
        values[name] = memory[name] if memory else torch.empty(shape, device=device)
        _fill(values[name], given.pieces[name], given.weight)
    return LatentBatch(values, given.present, given.parents, given.content)


def _fill(values: Tensor, parents: Sequence[Sequence[Piece]], weight: float | Tensor) -> None:
    """Write the latents of all pairs, mixed where there are two parents."""
    pairs, dim = values.shape
    at_once = min(pairs, max(1, BYTES_AT_ONCE[values.device.type] // (4 * dim)))
    room = values.new_empty(2 if len(parents) > 1 else 0, at_once, dim)
    for start in range(0, pairs, at_once):
        chunk = slice(start, min(start + at_once, pairs))
        filled = values[chunk]
        if len(parents) == 1:
            _gather(parents[0], chunk, pairs, filled)
            continue
        one, other = room[:, : len(filled)]
        _gather(parents[0], chunk, pairs, one)
        _gather(parents[1], chunk, pairs, other)
        torch.lerp(other, one, weight[chunk] if isinstance(weight, Tensor) else weight, out=filled)


def _gather(pieces: Sequence[Piece], chunk: slice, pairs: int, latents: Tensor) -> None:
    """Write the latents of a stretch of pairs, zeros where they have none."""
    if not pieces or pieces[0].places is not None:
        latents.zero_()
    for piece in pieces:
        if piece.places is None:
            latents.copy_(piece.values.index_select(0, piece.index[chunk]))
            continue
        within = slice(None)
        if len(latents) < pairs:
            # On a GPU this waits for the step before; there a batch is seldom more than one stretch.
            ends = piece.places.new_tensor([chunk.start, chunk.stop])
            within = slice(*torch.searchsorted(piece.places, ends).tolist())
        rows = piece.values.index_select(0, piece.index[within])
        latents.index_copy_(0, piece.places[within] - chunk.start, rows.float())


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
