"""What can be seen of a GPU without one: that nothing is on the wrong device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ON_A_GPU = [
    "tests/benchmarks/test_per_query.py",
    "tests/extract/test_batching.py",
    "tests/fusemix/retrieval/test_rankings.py",
    "tests/fusemix/training/test_feeding.py",
    "tests/fusemix/training/test_fuse_gpu.py",
    "tests/fusemix/training/test_gradients.py",
]
REFUSED = """
import torch, tests.pretended_gpu
from tests.pretended_gpu import FREE
here, there = torch.ones(3, 2), torch.ones(3, 2, device="cuda")
print(there.device, (there + there).cpu().device, there.to("cpu").sum().item(), (there * 2.0).is_cuda)
rows = torch.tensor([0, 2])
assert there[rows].is_cuda and there.new_zeros(4).is_cuda and there.to(torch.float16).is_cuda
there[rows] = 5.0
assert there.cpu()[:, 0].tolist() == [5, 1, 5] and there[:, 1].tolist() == [5, 1, 5]
leaf = torch.ones(3, 2, requires_grad=True)
(leaf.cuda() * there).sum().backward()
assert leaf.grad.tolist() == there.cpu().tolist()
for wrong in (
    lambda: here + there,
    lambda: torch.mm(there, here.T),
    lambda: here[rows.cuda()],
    lambda: there.index_copy_(0, rows.cuda(), here[:2]),
    lambda: there.numpy(),
    lambda: torch.empty(FREE + 1, dtype=torch.uint8, device="cuda"),
):
    try:
        wrong()
    except (RuntimeError, TypeError) as error:
        print(error)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_the_pretended_gpu_refuses_what_a_gpu_refuses() -> None:
    told = run("-c", REFUSED)
    assert told.returncode == 0, told.stderr
    first, *refused = told.stdout.splitlines()
    assert first == "cuda:0 cpu 6.0 True"
    assert len(refused) == 6
    assert all("same device" in line for line in refused[:4])
    assert "numpy" in refused[4]
    assert "out of memory" in refused[5]


def test_what_runs_on_a_gpu_keeps_to_one_device() -> None:
    told = run("-m", "pytest", "-p", "tests.pretended_gpu", "-p", "no:cacheprovider", "-q", "-k", "gpu", *ON_A_GPU)
    assert told.returncode == 0, told.stdout
    assert "skipped" not in told.stdout
