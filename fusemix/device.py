"""Where tensors live, and in what precision adapters run there."""

from __future__ import annotations

import re

import torch

from fusemix.errors import FusemixError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`: `auto` (a CUDA GPU where one works, else the CPU), `cpu`, `cuda`, `cuda:1`.

    Raises:
        FusemixError: for an unknown name, a GPU that is not there, or a PyTorch build without kernels for it.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise FusemixError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise FusemixError(f"device {name!r} asked for, but PyTorch {torch.__version__} sees no CUDA GPU here")
    device = torch.device("cuda" if name == "auto" else name)
    if (device.index or 0) >= torch.cuda.device_count():
        raise FusemixError(f"device {name!r} asked for, but this machine has {torch.cuda.device_count()} GPU(s)")
    check_capability(torch.cuda.get_device_capability(device), torch.cuda.get_arch_list())
    return device


def check_capability(capability: tuple[int, int], built_for: list[str]) -> None:
    """Refuse a GPU for which this PyTorch build has no kernels, saying which build has them.

    Args:
        capability: the GPU's compute capability, (7, 0) for a V100.
        built_for: `torch.cuda.get_arch_list()`, for example `["sm_75", "sm_80", "compute_90"]`.

    Raises:
        FusemixError: where no binary of the same major version and no older PTX is there.
    """
    major, minor = capability
    for arch in built_for:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", arch)
        if match is None:
            continue
        built = (int(match[2]), int(match[3]))
        if match[1] == "sm" and built[0] == major and built[1] <= minor:
            return
        if match[1] == "compute" and built <= capability:
            return
    build = "cu126" if major == 7 and minor < 5 else "cu126 or newer"
    raise FusemixError(
        f"this PyTorch {torch.__version__} has no kernels for a GPU of compute capability {major}.{minor} (it has"
        f" {', '.join(built_for)}); install the {build} build: make setup"
        " TORCH_INDEX=https://download.pytorch.org/whl/cu126"
    )


def adapter_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """Return the type in which adapters compute on a device.

    Args:
        device: where they run.
        precision: `auto` (float32 on a CPU, bfloat16 where the GPU has it, else float16), or the type's name.

    Raises:
        FusemixError: for float16 on a CPU, or bfloat16 on a GPU that only emulates it.
    """
    if device.type != "cuda":
        if precision == "float16":
            raise FusemixError(
                "fuse.precision is float16, which only GPUs train in: choose auto, float32 or bfloat16, or use a GPU"
            )
        return DTYPES.get(precision, torch.float32)
    with torch.cuda.device(device):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and not native:
        raise FusemixError("fuse.precision is bfloat16, which this GPU only emulates: choose auto or float16")
    return DTYPES.get(precision, torch.bfloat16 if native else torch.float16)
