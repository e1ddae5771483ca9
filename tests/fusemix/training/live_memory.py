"""The memory that tensors take, counted operator by operator: what a prediction is measured by."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts the storages that are made in its block, in this thread, from when an operator makes them until they go.

    Args:
        known: tensors that were there before, which are not counted.
    """

    def __init__(self, known: Sequence[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._storages: dict[int, Any] = {tensor.untyped_storage()._cdata: tensor for tensor in known}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def gone(_: object) -> None:
            self.now -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, gone)
        self.now += size


def dropout_of_a_gpu(x: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    """Drop out as torch does on a GPU, by the kernel that keeps a byte an entry; a CPU has it too."""
    return torch.native_dropout(x, p, training)[0] if training and p > 0 else x
