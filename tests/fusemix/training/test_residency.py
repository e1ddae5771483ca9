from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from fusemix.errors import FusemixError
from fusemix.latents.file import LatentsFile
from fusemix.latents.paired import PairedLatents
from fusemix.training import residency
from fusemix.training.residency import choose_residency, make_table, wants_mapping
from tests.fusemix.synthetic import encoder

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ITEMS, DIM = 100, 8
SIZE = ITEMS * DIM * 2


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Say how many bytes are free, by kind of device."""
    room = {"cpu": 1 << 30, "cuda": 1 << 30}
    monkeypatch.setattr(residency, "free_memory", lambda device: room[device.type])
    return room


@pytest.fixture
def readers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as threads:
        yield threads


def store(path: Path, *, mapped: bool = False, split: bool = False) -> PairedLatents:
    """Return latents of 100 items in a scattered order, half of them to train on where they are split."""
    rng = np.random.default_rng(0)
    items = [f"{item:03d}" for item in rng.permutation(ITEMS)]
    splits = ["val" if split and int(item) % 2 else "train" for item in items]
    latents = rng.normal(size=(ITEMS, DIM))
    LatentsFile.from_arrays(path, items, latents, encoder("image", DIM), splits=splits)
    return PairedLatents.load({"image": path}, mapped=mapped)


@pytest.mark.parametrize(
    ("on_gpu", "in_memory", "expected"),
    [
        (2 * SIZE, 0, "device"),
        (2 * SIZE - 1, SIZE * 4 // 3 + 1, "host"),
        (2 * SIZE - 1, SIZE * 4 // 3 - 1, "disk"),
    ],
)
def test_the_first_place_with_room_is_taken_on_a_gpu(
    tmp_path: Path, free: dict[str, int], on_gpu: int, in_memory: int, expected: str
) -> None:
    free.update(cuda=on_gpu, cpu=in_memory)
    latents = store(tmp_path / "i.h5", mapped=True)
    assert choose_residency([latents], "auto", GPU).place == expected
    assert wants_mapping(SIZE, "auto", GPU) == (expected != "host")


@pytest.mark.parametrize(("in_memory", "expected"), [(2 * SIZE, "device"), (2 * SIZE - 1, "disk")])
def test_half_of_the_memory_is_left_to_training_on_a_cpu(
    tmp_path: Path, free: dict[str, int], in_memory: int, expected: str
) -> None:
    free.update(cpu=in_memory)
    latents = store(tmp_path / "i.h5", mapped=True)
    assert choose_residency([latents], "auto", CPU).place == expected
    assert wants_mapping(SIZE, "auto", CPU) == (expected == "disk")
    # Of several datasets, all count.
    assert choose_residency([latents, latents], "auto", CPU).place == "disk"


def test_latents_that_were_read_stay_in_memory(tmp_path: Path, free: dict[str, int]) -> None:
    free.update(cpu=0, cuda=SIZE)
    latents = store(tmp_path / "i.h5")
    assert choose_residency([latents], "auto", CPU).place == "device"
    assert choose_residency([latents], "auto", GPU).place == "host"


def test_only_what_is_trained_on_counts(tmp_path: Path, free: dict[str, int]) -> None:
    free.update(cpu=SIZE)
    latents = store(tmp_path / "i.h5", mapped=True, split=True)
    assert choose_residency([latents.split("train")], "auto", CPU).place == "device"


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("forced", ["device", "host", "disk"])
def test_a_setting_forces_the_place(
    tmp_path: Path, free: dict[str, int], device: torch.device, forced: Literal["device", "host", "disk"]
) -> None:
    latents = store(tmp_path / "i.h5", mapped=True)
    assert choose_residency([latents], forced, device).place == forced
    assert wants_mapping(SIZE, forced, device) == (forced == "disk" or (forced == "device" and device == GPU))


def test_a_place_without_room_is_refused(tmp_path: Path, free: dict[str, int]) -> None:
    free.update(cuda=SIZE - 1, cpu=SIZE)
    latents = store(tmp_path / "i.h5", mapped=True)
    with pytest.raises(FusemixError, match=r"residency is device, but the latents take 0\.0 MB and .* free on cuda"):
        choose_residency([latents], "device", GPU)
    assert choose_residency([latents], "host", GPU).place == "host"
    free.update(cpu=SIZE - 1)
    with pytest.raises(FusemixError, match=r"residency is host, .* are free in memory: set it to auto or disk"):
        choose_residency([latents], "host", GPU)
    with pytest.raises(FusemixError, match=r"residency is device, .* are free in memory"):
        choose_residency([latents], "device", CPU)


def test_one_line_says_where_latents_wait_and_why(
    tmp_path: Path, free: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    free.update(cpu=20 * 10**9, cuda=int(31.5e9))
    monkeypatch.setattr(residency, "_size", lambda modality: 12 * 10**9)
    read, mapped = store(tmp_path / "i.h5"), store(tmp_path / "j.h5", mapped=True)

    def line(setting: Literal["auto", "host", "disk"], device: torch.device, *latents: PairedLatents) -> str:
        return str(choose_residency(latents, setting, device))

    assert line("auto", GPU, mapped) == (
        "latents: 12.0 GB on cuda, by fuse.residency auto (free: 31.5 GB on cuda, 20.0 GB in memory)"
    )
    assert line("host", GPU, mapped).startswith("latents: 12.0 GB in memory, gathered a step ahead for cuda, by fuse")
    assert line("auto", CPU, mapped) == (
        "latents: 12.0 GB in their files, read a step ahead, by fuse.residency auto (free: 20.0 GB in memory)"
    )
    assert line("auto", CPU, read).startswith("latents: 12.0 GB in memory, by fuse.residency auto (free: 20.0 GB in")
    assert line("disk", CPU, read).startswith("latents: 12.0 GB in memory, by fuse.residency disk")
    assert "24.0 GB in their files, read a step ahead (12.0 GB of them in memory, where they were read), by" in line(
        "disk", CPU, read, mapped
    )


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("place", ["device", "host", "disk"])
def test_a_row_is_the_same_wherever_it_waits(
    tmp_path: Path,
    readers: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    mapped: bool,
    place: Literal["device", "host", "disk"],
) -> None:
    monkeypatch.setattr(residency, "ELEMENTS_AT_ONCE", 7 * DIM)
    modality = store(tmp_path / "i.h5", mapped=mapped, split=True).split("train")["image"]
    table = make_table(modality, place, CPU)
    assert table.at_hand == (place != "disk" or not mapped)
    if not mapped or place == "disk":
        assert table.values.data_ptr() == modality.values.data_ptr()
    else:
        assert len(table.values) == ITEMS // 2
    # In any order, some twice, and fewer than there are readers.
    for rows in (modality.rows, modality.rows[[3, 1, 3]], modality.rows[:1], modality.rows[:0]):
        places = table.find(rows)
        assert torch.equal(table.values[places], modality.values[rows])
        gathered, index = table.gather(places, readers, pinned=False)
        assert torch.equal(gathered[index], modality.values[rows])


def test_a_file_is_read_in_its_order(tmp_path: Path, readers: ThreadPoolExecutor) -> None:
    modality = store(tmp_path / "i.h5", mapped=True)["image"]
    rows = torch.randperm(ITEMS)
    gathered, _ = make_table(modality, "disk", CPU).gather(rows, readers, pinned=False)
    assert torch.equal(gathered, modality.values)
