from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fusemix import free_memory as module
from fusemix.free_memory import free_memory

CPU = torch.device("cpu")
UNLIMITED = 9_223_372_036_854_771_712
AVAILABLE = 1_000_000 * 1024


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write what Linux says of a machine that has 1 GB available and no control groups; return its folder."""
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\nMemFree: 10 kB\nMemAvailable:    1000000 kB\n")
    for name, path in (("MEMORY", "meminfo"), ("MEMBERSHIP", "membership"), ("GROUPS", "groups")):
        monkeypatch.setattr(module, name, tmp_path / path)
    return tmp_path


def group(folder: Path, files: dict[str, int | str], active: int = 0, inactive: int = 0, prefix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    statistics = f"anon 5\n{prefix}active_file {active}\n{prefix}inactive_file {inactive}\nfile 77\n"
    (folder / "memory.stat").write_text(statistics)


def newer(limit: int | str, used: int) -> dict[str, int | str]:
    return {"memory.max": limit, "memory.current": used}


def older(limit: int, used: int) -> dict[str, int | str]:
    return {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used}


def test_it_is_what_this_system_says() -> None:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    assert 0 < free_memory(CPU) < 1.2 * available


def test_a_machine_without_control_groups(machine: Path) -> None:
    assert free_memory(CPU) == AVAILABLE
    (machine / "meminfo").unlink()
    assert free_memory(CPU) > AVAILABLE, "all that this machine has"


def test_the_smallest_room_of_a_group_and_those_around_it_counts(machine: Path) -> None:
    (machine / "membership").write_text("0::/jobs/mine\n")
    group(machine / "groups/jobs/mine", newer("max", 300))
    assert free_memory(CPU) == AVAILABLE
    group(machine / "groups/jobs", newer(5000, 3000))
    assert free_memory(CPU) == 2000
    group(machine / "groups/jobs/mine", newer(900, 300))
    assert free_memory(CPU) == 600


def test_pages_of_files_are_free_and_no_room_is_less_than_none(machine: Path) -> None:
    (machine / "membership").write_text("0::/\n")
    group(machine / "groups", newer(1000, 990), active=40, inactive=300)
    assert free_memory(CPU) == 350
    group(machine / "groups", newer(1000, 1200))
    assert free_memory(CPU) == 0


def test_groups_of_the_older_kind_seen_from_inside_a_container(machine: Path) -> None:
    lines = ["9:name=systemd:/docker/ab", "5:cpu,cpuacct:/docker/ab", "4:memory:/docker/ab", "0::/"]
    (machine / "membership").write_text("\n".join(lines))
    group(machine / "groups/memory", older(4000, 1000), active=7, prefix="total_")
    group(machine / "groups/cpu,cpuacct", older(1, 1))
    assert free_memory(CPU) == 3007
    group(machine / "groups/memory", older(UNLIMITED, 1000))
    assert free_memory(CPU) == AVAILABLE


def test_files_that_are_not_as_expected_limit_nothing(machine: Path) -> None:
    (machine / "membership").write_text("0::/mine\n")
    group(machine / "groups/mine", newer("", 0))
    assert free_memory(CPU) == AVAILABLE
    group(machine / "groups/mine", newer(10, 0))
    (machine / "groups/mine/memory.stat").unlink()
    assert free_memory(CPU) == AVAILABLE
