from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from fusemix.device import adapter_dtype, check_capability, resolve_device
from fusemix.errors import FusemixError

V100 = (7, 0)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: V100)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_70"])


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "mps", "", "cpu:0"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(FusemixError, match=f"unknown device '{name}': choose auto, cpu, cuda or cuda:N"):
        resolve_device(name)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused() -> None:
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(FusemixError, match="sees no CUDA GPU"):
        resolve_device("cuda")


@pytest.mark.usefixtures("two_gpus")
def test_with_a_gpu_auto_takes_it_unless_told_otherwise() -> None:
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(FusemixError, match=r"'cuda:2' asked for, but this machine has 2 GPU"):
        resolve_device("cuda:2")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_the_build_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75"])
    with pytest.raises(FusemixError, match=r"compute capability 7\.0"):
        resolve_device("auto")


@pytest.mark.parametrize(
    ("capability", "built_for"),
    [
        (V100, ["sm_60", "sm_70", "sm_80"]),
        (V100, ["compute_60"]),
        (V100, ["sm_80", "compute_70"]),
        ((8, 6), ["sm_80"]),
        ((9, 0), ["sm_90a"]),
        ((12, 0), ["sm_100", "compute_120"]),
        ((10, 3), ["sm_100f"]),
    ],
)
def test_a_binary_of_the_same_major_version_or_older_ptx_will_do(
    capability: tuple[int, int], built_for: list[str]
) -> None:
    check_capability(capability, built_for)


@pytest.mark.parametrize(
    ("capability", "built_for"),
    [
        (V100, ["sm_75", "sm_80", "sm_90"]),
        (V100, ["sm_60", "compute_75"]),
        (V100, []),
        ((8, 0), ["sm_86"]),
        ((12, 0), ["sm_100", "not_an_arch"]),
    ],
)
def test_a_gpu_without_kernels_is_told_which_build_has_them(
    capability: tuple[int, int], built_for: list[str]
) -> None:
    with pytest.raises(FusemixError) as refused:
        check_capability(capability, built_for)
    message = str(refused.value)
    assert f"capability {capability[0]}.{capability[1]}" in message
    assert ", ".join(built_for) in message
    assert "make setup TORCH_INDEX=https://download.pytorch.org/whl/cu126" in message
    assert ("cu126 or newer" in message) == (capability != V100)


def test_adapters_run_in_the_precision_that_the_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert adapter_dtype(torch.device("cpu")) == torch.float32
    for native, dtype in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        monkeypatch.setattr(torch.cuda, "device", nullcontext)
        assert adapter_dtype(torch.device("cuda")) == dtype


def test_a_precision_that_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert adapter_dtype(gpu, str(dtype).removeprefix("torch.")) == dtype
    assert adapter_dtype(cpu, "float32") == torch.float32
    assert adapter_dtype(cpu, "bfloat16") == torch.bfloat16
    assert adapter_dtype(cpu, "auto") == torch.float32


def test_a_precision_that_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FusemixError, match=r"precision is float16, which only GPUs train in: choose auto"):
        adapter_dtype(torch.device("cpu"), "float16")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    with pytest.raises(FusemixError, match=r"precision is bfloat16, which this GPU only emulates: choose auto"):
        adapter_dtype(torch.device("cuda"), "bfloat16")
