from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fusemix.errors import FusemixError, Stopped
from fusemix.extract import Dataset, ExtractSettings, Sources, extract, register_encoder, registry
from fusemix.extract.extraction import latents_path
from fusemix.extract.images import SquareImage
from fusemix.latents.failures import failures_path
from fusemix.latents.file import DONE, FAILED, LatentsFile
from fusemix.latents.provenance import content_hash
from tests.extract.colours import Colours, Refusing, colour, coloured, expected_latents, row_of
from tests.extract.test_workers import process

ROWS = 12
ONE_WORKER = ExtractSettings(workers=1, block_rows=5)


class Spoiling(Colours):
    """Gives latents that hold a value of one's choice in row 3."""

    def __init__(self, value: float) -> None:
        super().__init__("text")
        self.value = value

    def encode(self, batch: Tensor) -> Tensor:
        rows = torch.tensor([row_of(pixel) for pixel in batch.numpy()])
        return super().encode(batch).masked_fill((rows == 3)[:, None], self.value)


def read_stubbornly(source: Path) -> Any:
    """Hang on one picture, crash on another, and read the rest."""
    if source.name == "item0003.png":
        time.sleep(600)
    if source.name == "item0005.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return SquareImage(4)(source)


class Processes(Colours):
    """Remembers which processes read the pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()
        self.preprocess = process

    def collate(self, prepared: Sequence[Any]) -> Tensor:
        self.seen |= set(prepared)
        return torch.zeros(len(prepared), 3)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return coloured(folder, ROWS)


def failures(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in failures_path(path).read_text().splitlines()]


def statuses(path: Path, status: int) -> list[int]:
    return np.flatnonzero(LatentsFile(path).status == status).tolist()


def test_pictures_become_latents_with_their_provenance(dataset: Dataset, tmp_path: Path) -> None:
    report = extract(dataset, "image", Colours(), ONE_WORKER, root=tmp_path)
    assert report.path == tmp_path / "latents" / "coloured" / "image" / "colours.h5"
    assert (report.rows, report.done, report.failed, report.encoded) == (ROWS, ROWS, 0, ROWS)
    file = LatentsFile(report.path)
    assert np.array_equal(file.read(), expected_latents(ROWS))
    assert file.items.tolist() == list(dataset.splits)
    assert file.splits.tolist() == list(dataset.splits.values())
    assert file.sources.tolist() == list(dataset["image"].values)
    raw = [(tmp_path / "pictures" / name).read_bytes() for name in dataset["image"].values]
    assert file.content.tolist() == [content_hash(one) for one in raw]
    assert file.spec == Colours().spec
    assert file.provenance.dataset == dataset.stamp("image")
    assert file.provenance.libraries["torch"] == torch.__version__
    assert file.damaged_rows() == []
    assert not failures_path(report.path).exists()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_captions_become_latents_of_the_type_asked_for(dataset: Dataset, tmp_path: Path, dtype: str) -> None:
    report = extract(dataset, "text", Colours("text"), ExtractSettings(dtype=dtype), root=tmp_path)
    stored = LatentsFile(report.path).read()
    assert stored.dtype == dtype
    assert np.array_equal(stored.astype(np.float16), expected_latents(ROWS))


def test_a_complete_file_is_left_alone_and_its_encoder_never_made(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = extract(dataset, "text", Colours("text", "named"), root=tmp_path).path
    monkeypatch.setattr(registry, "_registered", {})
    register_encoder("named", "no.such.module:make")
    before = path.read_bytes()
    report = extract(dataset, "text", "named", root=tmp_path)
    assert report.encoded == 0
    assert str(report) == f"{path}: complete, {ROWS} rows"
    assert path.read_bytes() == before


def test_a_registered_encoder_is_made_by_name(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    register_encoder("written-colours", "tests.extract.colours:of_captions")
    assert extract(dataset, "text", "written-colours", root=tmp_path, device="cpu").done == ROWS


def test_a_broken_picture_fails_alone_and_can_be_retried_once_repaired(dataset: Dataset, tmp_path: Path) -> None:
    broken = tmp_path / "pictures" / "item0007.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:40])
    report = extract(dataset, "image", Colours(), ONE_WORKER, root=tmp_path)
    assert (report.done, report.failed, report.complete) == (ROWS - 1, 1, True)
    first, second = str(report).splitlines()
    assert first.endswith(f"1 failed (see {failures_path(report.path)})")
    assert second == "  'item0007.png' (item0007): ValueError: not a picture of a known format"
    [failure] = failures(report.path)
    assert failure.pop("reason") == "ValueError: not a picture of a known format"
    assert failure == {"row": 7, "item": "item0007", "source": "item0007.png"}
    good = [row for row in range(ROWS) if row != 7]
    assert np.array_equal(LatentsFile(report.path).read()[good], expected_latents(ROWS)[good])

    broken.write_bytes(whole)
    assert extract(dataset, "image", Colours(), ONE_WORKER, root=tmp_path).encoded == 0
    report = extract(dataset, "image", Colours(), ONE_WORKER, root=tmp_path, retry_failed=True)
    assert (report.done, report.failed, report.encoded) == (ROWS, 0, 1)
    assert not failures_path(report.path).exists()
    assert np.array_equal(LatentsFile(report.path).read(), expected_latents(ROWS))
    assert LatentsFile(report.path).content[7] == content_hash(whole)


def test_a_missing_picture_fails_alone(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "item0000.png").unlink()
    path = extract(dataset, "image", Colours(), ONE_WORKER, root=tmp_path).path
    assert statuses(path, FAILED) == [0]
    assert "No such file" in failures(path)[0]["reason"]


def test_an_input_that_the_encoder_refuses_fails_alone(dataset: Dataset, tmp_path: Path) -> None:
    path = extract(dataset, "text", Refusing([2, 11]), ONE_WORKER, root=tmp_path).path
    assert statuses(path, FAILED) == [2, 11]
    assert [(one["row"], one["source"], one["reason"]) for one in failures(path)] == [
        (row, dataset["text"].values[row], "ValueError: no such colour") for row in (2, 11)
    ]
    good = statuses(path, DONE)
    assert np.array_equal(LatentsFile(path).read()[good], expected_latents(ROWS)[good])


def test_a_refused_input_that_is_alone_in_its_block_stops_nothing(dataset: Dataset, tmp_path: Path) -> None:
    path = extract(dataset, "text", Refusing([2, 11]), ExtractSettings(block_rows=1), root=tmp_path).path
    assert statuses(path, FAILED) == [2, 11]


def test_an_encoder_that_refuses_everything_stops_the_run_before_rows_fail(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(FusemixError, match="failed on each of 5 rows, first with ValueError: no such colour"):
        extract(dataset, "text", Refusing(range(ROWS)), ONE_WORKER, root=tmp_path)
    path = latents_path(tmp_path, "coloured", "text", "colours")
    assert statuses(path, DONE) == statuses(path, FAILED) == []
    assert extract(dataset, "text", Colours("text"), ONE_WORKER, root=tmp_path).done == ROWS


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "latent is NaN or infinite"),
        (float("-inf"), "latent is NaN or infinite"),
        (70_000.0, "latent is beyond the range of float16: extract with extract.dtype float32"),
    ],
)
def test_a_latent_that_cannot_be_stored_fails_its_row(
    dataset: Dataset, tmp_path: Path, value: float, reason: str
) -> None:
    path = extract(dataset, "text", Spoiling(value), ONE_WORKER, root=tmp_path).path
    assert statuses(path, FAILED) == [3]
    assert failures(path)[0]["reason"] == reason


def test_stopping_keeps_finished_blocks_and_the_same_command_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=rf"stopped: 5 of {ROWS} rows of .*colours\.h5 are done; run the same command"):
        extract(dataset, "text", Refusing([7], KeyboardInterrupt), ONE_WORKER, root=tmp_path)
    encoder = Refusing([])
    assert extract(dataset, "text", encoder, ONE_WORKER, root=tmp_path).encoded == ROWS - 5
    assert sorted(encoder.encoded) == list(range(5, ROWS))


def test_another_dataset_is_refused_by_name(dataset: Dataset, tmp_path: Path) -> None:
    path = extract(dataset, "text", Colours("text"), root=tmp_path).path
    moved = replace(dataset, splits={**dataset.splits, "item0000": "test"})
    with pytest.raises(FusemixError, match=rf"{path} holds latents of another dataset .*{dataset.fingerprint}"):
        extract(moved, "text", Colours("text"), root=tmp_path)
    texts = Sources(dataset["text"].items, ["0 0 0"] * ROWS, are_paths=False)
    with pytest.raises(FusemixError, match="another version of it"):
        extract(replace(dataset, modalities={"text": texts}), "text", Colours("text"), root=tmp_path)


@pytest.mark.parametrize("finished", [True, False])
def test_another_encoder_is_refused_by_field(dataset: Dataset, tmp_path: Path, finished: bool) -> None:
    refused = [] if finished else [7]
    try:
        extract(dataset, "text", Refusing(refused, KeyboardInterrupt), ONE_WORKER, root=tmp_path)
    except Stopped:
        assert not finished
    other = Colours("text")
    other.spec = replace(other.spec, pooling="cls")
    with pytest.raises(FusemixError, match=r"begun by another encoder or version of it .* pooling: '' / 'cls'"):
        extract(dataset, "text", other, root=tmp_path)


def test_the_wrong_modality_is_refused_before_anything_is_written(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(FusemixError, match="encoder 'colours' is for text, not image"):
        extract(dataset, "image", Colours("text"), root=tmp_path)
    assert not (tmp_path / "latents").exists()


def test_a_second_run_on_the_same_file_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    class Nested(Colours):
        def encode(self, batch: Tensor) -> Tensor:
            with pytest.raises(FusemixError, match=rf"being written by another run .*{os.getpid()}"):
                extract(dataset, "text", Colours("text"), root=tmp_path)
            return super().encode(batch)

    assert extract(dataset, "text", Nested("text"), root=tmp_path).done == ROWS


def test_pictures_on_which_workers_hang_or_die_fail_alone(dataset: Dataset, tmp_path: Path) -> None:
    encoder = Colours()
    encoder.preprocess = read_stubbornly
    settings = ExtractSettings(workers=2, seconds_per_item=1)
    path = extract(dataset, "image", encoder, settings, root=tmp_path).path
    assert statuses(path, FAILED) == [3, 5]
    assert [one["reason"] for one in failures(path)] == [
        "took longer than 1 s",
        "killed its worker process (signal 9) twice",
    ]
    good = statuses(path, DONE)
    assert np.array_equal(LatentsFile(path).read()[good], expected_latents(ROWS)[good])


@pytest.mark.parametrize("workers", [1, 2])
def test_pictures_are_read_by_so_many_processes(tmp_path: Path, workers: int) -> None:
    encoder = Processes()
    rows = 96
    settings = ExtractSettings(workers=workers, block_rows=48)
    assert extract(coloured(tmp_path, rows), "image", encoder, settings, root=tmp_path).done == rows
    assert 1 <= len(encoder.seen) <= workers
    assert os.getpid() not in encoder.seen


def test_the_colours_of_rows_differ() -> None:
    assert len({colour(row) for row in range(1000)}) == 1000
    assert all(row_of(np.array(colour(row))) == row for row in range(1000))
