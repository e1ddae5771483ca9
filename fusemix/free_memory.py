"""How much memory is free: of a GPU, or of this machine within the limits of the container or job that runs here.

What a machine has available says nothing inside a container or a cluster's job, which the kernel kills once its
control group is full.  So the groups that this process is in are asked too, from its own up to the root.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch

MEMORY = Path("/proc/meminfo")
MEMBERSHIP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a GPU, or available to this process on this machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([_available(), *_left_to_groups()])


def _available() -> int:
    try:
        lines = MEMORY.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux: what it has is all that can be said
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _left_to_groups() -> Iterator[int]:
    """Yield what the limit of each control group leaves; of either version of their files."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _left(GROUPS, path, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            yield from _left(GROUPS / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


def _left(mount: Path, path: str, limit: str, usage: str, prefix: str) -> Iterator[int]:
    """Yield what is left to a group and to those around it.

    A container may see its own group at the mount itself, while its path is still the one of the host: a folder that
    is not there is passed over.
    """
    inside = PurePosixPath(path).relative_to("/")
    for folder in [mount / inside, *(mount / parent for parent in inside.parents)]:
        try:
            most = int((folder / limit).read_text())
            used = int((folder / usage).read_text())
            statistics = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # none there, or `max`: no limit
            continue
        # Pages of files are given up before anything is killed; the machine's own figure counts them as available.
        files = sum(int(statistics.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
        yield max(0, most - used + files)
