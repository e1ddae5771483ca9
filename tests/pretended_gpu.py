"""A GPU that is not there, for machines without one: `python -m pytest -p tests.pretended_gpu ...`.

Tensors on it say that they are on `cuda:0`, hold their numbers in the host's memory, and refuse what those of a GPU
refuse: to be computed with beside tensors of the host, to be read by numpy, to be larger than its memory.  So a
tensor on the wrong device shows on any machine.  Of kernels, streams, speed and rounding it says nothing.

It replaces parts of torch for good and is for a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.utils._device
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
FREE = 8 << 30
FACTORIES = ("arange", "empty", "full", "ones", "rand", "randint", "randn", "randperm", "tensor", "zeros")
aten = torch.ops.aten
ACROSS_DEVICES = (aten.copy_, aten._to_copy)
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)


class OnGpu(torch.Tensor):
    """A tensor on the pretended GPU, around the one in the host's memory that holds its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        made: OnGpu = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device("cpu"),
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __array__(self, dtype: Any = None) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def record_stream(self, s: Any) -> None:
        """Nothing runs beside anything else."""

    def tolist(self) -> Any:
        return self.held.tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"OnGpu({self.held!r})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        _check_devices(func, args, given)
        if "device" in given:
            given["device"] = torch.device("cpu")
        given.pop("pin_memory", None)
        found = func(*tree_map(_held, args), **tree_map(_held, given))
        if func.overloadpacket is aten.copy_ and not isinstance(args[0], OnGpu):
            return args[0]
        return return_and_correct_aliasing(func, args, given, tree_map(_wrapped, found))


def _check_devices(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse an operation on tensors of both devices; numbers without dimensions may come from the host."""
    operation, tensors = func.overloadpacket, [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    if operation in ACROSS_DEVICES:
        return
    if operation in INDEXING:
        # A GPU's tensor may be indexed from the host, but not the other way round, nor filled from there.
        tensors = [args[0], *args[2:3]]
    if any(isinstance(t, OnGpu) for t in tree_leaves((args, kwargs))) and not all(
        isinstance(t, OnGpu) or t.ndim == 0 for t in tensors if isinstance(t, Tensor)
    ):
        shapes = [f"{tuple(t.shape)} on {t.device}" for t in tensors]
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, not {', '.join(shapes)}")


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


def _wrapped(value: Any) -> Any:
    return OnGpu(value) if isinstance(value, Tensor) and not isinstance(value, OnGpu) else value


class _Upload(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return OnGpu(tensor.detach().clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        held: Tensor = _held(grad)
        return held


class _Download(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: OnGpu) -> Tensor:
        return tensor.held.detach().clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return OnGpu(grad)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if (device.type == "cuda") == isinstance(tensor, OnGpu):
        return tensor
    across: Any = _Upload if device.type == "cuda" else _Download
    moved: Tensor = across.apply(tensor)
    return moved if torch.is_grad_enabled() else moved.detach()


def _to(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def to(self: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
        if args and isinstance(args[0], Tensor):
            device, dtype = args[0].device, args[0].dtype
        else:
            device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        moved = self if device is None else _moved(self, device)
        moved = moved if dtype in (None, moved.dtype) else real(moved, dtype)
        return moved.clone() if copy and moved is self else moved

    return to


def _factory(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def make(*args: Any, **kwargs: Any) -> Tensor:
        kwargs.pop("pin_memory", None)
        device = kwargs.get("device")
        if device is None or torch.device(device).type != "cuda":
            return real(*args, **kwargs)
        size = real(*args, **{**kwargs, "device": "meta"})
        if size.numel() * size.element_size() > FREE:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size.numel()} numbers.")
        return OnGpu(real(*args, **{**kwargs, "device": "cpu"}))

    return make


def _new(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def make(self: OnGpu, *args: Any, **kwargs: Any) -> Tensor:
        return OnGpu(real(self.held, *args, **kwargs))

    return make


class _Stream:
    """A stream, or an event on it: all is done when it is asked for."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record_event(self, *_: Any) -> _Stream:
        return self

    def wait_event(self, event: _Stream) -> None: ...


class _Autocast(torch.autocast):
    """The host's autocast for both devices."""

    def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: Any = None) -> None:
        super().__init__("cpu", dtype if enabled else torch.bfloat16, enabled, cache_enabled)


def _install() -> None:
    # Filled before its members are replaced, for what runs under `with torch.device(...)`.
    torch.utils._device._device_constructors()
    for name in FACTORIES:
        setattr(torch, name, _factory(getattr(torch, name)))
    for name in ("new_empty", "new_full", "new_ones", "new_tensor", "new_zeros"):
        setattr(OnGpu, name, _new(getattr(torch.Tensor, name)))
    plain: Any = torch.Tensor
    plain.to = _to(plain.to)
    plain.cpu = lambda self: _moved(self, torch.device("cpu"))
    plain.cuda = lambda self, *_, **__: _moved(self, GPU)
    plain.pin_memory = lambda self: self.clone()
    saved = torch.save
    whole: Any = torch
    whole.save = lambda value, *args: saved(
        tree_map(lambda t: _held(t).detach() if isinstance(t, OnGpu) else t, value), *args
    )
    whole.inference_mode = lambda mode=True: torch.no_grad()
    whole.autocast = whole.amp.autocast = _Autocast
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    cuda: Any = torch.cuda
    cuda.Stream = cuda.Event = _Stream
    cuda.current_stream = lambda device=None: _Stream()
    cuda.stream = cuda.device = lambda what: nullcontext()
    cuda.is_available = cuda.is_initialized = lambda: True
    cuda.device_count = lambda: 1
    cuda.get_device_name = lambda device=None: "pretended V100"
    cuda.get_device_capability = lambda device=None: (7, 0)
    cuda.get_arch_list = lambda: ["sm_70"]
    cuda.is_bf16_supported = lambda including_emulation=True: including_emulation
    cuda.mem_get_info = lambda device=None: (FREE, 2 * FREE)
    cuda.memory_allocated = cuda.max_memory_allocated = lambda device=None: 1
    cuda.synchronize = cuda.reset_peak_memory_stats = lambda device=None: None
    cuda.empty_cache = lambda: None
    cuda.default_generators = (torch.default_generator,)
    cuda.get_rng_state = lambda device=None: torch.default_generator.get_state()
    cuda.set_rng_state = lambda state, device=None: torch.default_generator.set_state(state)
    cuda.amp.common.amp_definitely_not_available = lambda: False


_install()
