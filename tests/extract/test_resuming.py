"""What happens to a file that is there already, and to its list of failures."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fusemix.errors import FusemixError, Stopped
from fusemix.extract import Dataset, EncoderChoice, ExtractSettings, extract, register_encoder, registry
from fusemix.extract.extraction import latents_path
from fusemix.extract.registry import encoder_label
from fusemix.latents.failures import failures_path
from fusemix.latents.file import DONE, FAILED, TO_DO, LatentsFile
from fusemix.latents.merging import merge
from fusemix.latents.provenance import EncoderSpec
from fusemix.latents.writer import FileLock
from tests.extract.colours import Colours, Refusing, coloured, expected_latents

ROWS = 12


class Shaded(Colours):
    """Has a setting, and says what it was made with."""

    def __init__(self, device: torch.device, *, shade: int = 0) -> None:
        super().__init__("text", "shaded")
        self.spec = replace(self.spec, layer=str(shade))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return coloured(tmp_path, ROWS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return latents_path(tmp_path, "coloured", "text", "colours")


def reasons(path: Path) -> dict[int, str]:
    lines = [json.loads(line) for line in failures_path(path).read_text().splitlines()]
    assert len({line["row"] for line in lines}) == len(lines)
    return {line["row"]: line["reason"] for line in lines}


def blocks_of(size: int, **settings: object) -> ExtractSettings:
    return ExtractSettings(workers=1, block_rows=size, **settings)  # type: ignore[arg-type]


def stopped_at(row: int, dataset: Dataset, root: Path, **settings: object) -> None:
    with pytest.raises(Stopped):
        extract(dataset, "text", Refusing([row], KeyboardInterrupt), blocks_of(4, **settings), root=root)


def test_settings_of_an_encoder_give_its_file_a_name_of_its_own(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    register_encoder("shaded", f"{__name__}:Shaded")
    plain = extract(dataset, "text", EncoderChoice("shaded", {"shade": 0}), root=tmp_path, device="cpu")
    choice = EncoderChoice("shaded", {"shade": 3})
    dark = extract(dataset, "text", choice, root=tmp_path, device="cpu")
    assert plain.path.name == "shaded.h5"
    assert dark.path.name == f"{encoder_label(choice)}.h5"
    assert dark.path != plain.path
    told = capsys.readouterr().err
    for file in (plain, dark):
        assert f"extract text by {file.path.stem}: {ROWS} of {ROWS} rows to do" in told
    assert LatentsFile(dark.path).spec.layer == "3"
    assert extract(dataset, "text", choice, root=tmp_path).encoded == 0


@pytest.mark.parametrize("finished", [True, False])
def test_another_stored_type_is_refused_naming_both(dataset: Dataset, tmp_path: Path, finished: bool) -> None:
    if finished:
        extract(dataset, "text", Colours("text"), root=tmp_path)
    else:
        stopped_at(6, dataset, tmp_path)
    told = r"colours\.h5 stores float16, and extract\.dtype is float32: set it to float16, or move the file away"
    with pytest.raises(FusemixError, match=told):
        extract(dataset, "text", Colours("text"), ExtractSettings(dtype="float32"), root=tmp_path)


def test_the_precision_is_stored_and_only_it_goes_on_with_a_file(
    dataset: Dataset, tmp_path: Path, path: Path
) -> None:
    stopped_at(6, dataset, tmp_path, precision="bfloat16")
    assert LatentsFile(path).spec.dtype == "bfloat16 autocast"
    with pytest.raises(FusemixError, match=r"was begun in bfloat16 autocast, and this run would go on in float32"):
        extract(dataset, "text", Colours("text"), root=tmp_path)
    settings = ExtractSettings(precision="bfloat16")
    assert extract(dataset, "text", Colours("text"), settings, root=tmp_path).encoded == ROWS - 4
    # Nothing is computed any more, so the precision does not matter.
    assert extract(dataset, "text", Colours("text"), root=tmp_path).complete


def test_a_second_run_is_refused_before_it_loads_its_encoder(
    dataset: Dataset, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    register_encoder("colours", "no.such.module:make")
    with FileLock(path), pytest.raises(FusemixError, match=rf"being written by another run .*{os.getpid()}"):
        extract(dataset, "text", "colours", root=tmp_path)
    assert not path.exists()


def test_a_file_that_another_run_finished_meanwhile_is_complete(
    dataset: Dataset, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking = FileLock.__enter__

    def finished_first(lock: FileLock) -> FileLock:
        monkeypatch.setattr(FileLock, "__enter__", taking)
        extract(dataset, "text", Colours("text"), root=tmp_path)
        return taking(lock)

    monkeypatch.setattr(FileLock, "__enter__", finished_first)
    encoder = Refusing()
    report = extract(dataset, "text", encoder, root=tmp_path)
    assert (report.done, report.encoded, encoder.encoded) == (ROWS, 0, [])


def test_lines_of_mended_rows_vanish_and_others_have_their_last_reason(
    dataset: Dataset, tmp_path: Path, path: Path
) -> None:
    extract(dataset, "text", Refusing([1, 5, 9]), blocks_of(4), root=tmp_path)
    assert reasons(path) == dict.fromkeys((1, 5, 9), "ValueError: no such colour")
    encoder = Refusing([5], KeyError)
    report = extract(dataset, "text", encoder, blocks_of(4), root=tmp_path, retry_failed=True)
    assert sorted(encoder.encoded) == [1, 9]
    assert (report.done, report.failed, report.encoded) == (ROWS - 1, 1, 2)
    assert reasons(path) == {5: "KeyError: 'no such colour'"}
    assert [(one.row, one.reason) for one in report.failures] == [(5, "KeyError: 'no such colour'")]


def test_a_retry_that_is_stopped_loses_no_reason(dataset: Dataset, tmp_path: Path, path: Path) -> None:
    extract(dataset, "text", Refusing([1, 5, 9]), blocks_of(4), root=tmp_path)
    with pytest.raises(Stopped):
        extract(dataset, "text", Refusing([9], KeyboardInterrupt), blocks_of(1), root=tmp_path, retry_failed=True)
    assert np.flatnonzero(LatentsFile(path).status == FAILED).tolist() == [9]
    assert 9 in reasons(path)
    # Whoever reads it now is not told of rows that are mended.
    assert [one.row for one in extract(dataset, "text", Colours("text"), root=tmp_path).failures] == [9]


def test_a_list_of_an_older_file_says_nothing_of_the_new_one(dataset: Dataset, tmp_path: Path, path: Path) -> None:
    extract(dataset, "text", Refusing([1]), root=tmp_path)
    path.unlink()
    assert extract(dataset, "text", Colours("text"), root=tmp_path).failures == ()
    assert not failures_path(path).exists()


def test_the_summary_shows_the_first_few_failures_and_counts_the_rest(dataset: Dataset, tmp_path: Path) -> None:
    report = extract(dataset, "text", Refusing(range(1, 6)), root=tmp_path)
    lines = str(report).splitlines()
    assert "7 of 12 rows done, 7 encoded now in 0 s, 5 failed (see " in lines[0]
    assert lines[1] == "  '1 0 254' (item0001): ValueError: no such colour"
    assert lines[4:] == ["  and 2 more"]


@pytest.mark.parametrize(("most", "done"), [(0, 3), (1, 6), (2, 9)])
def test_too_many_failures_stop_the_run_and_keep_all(
    dataset: Dataset, tmp_path: Path, path: Path, most: int, done: int
) -> None:
    refused = [1, 5, 9]
    settings = blocks_of(4, max_failures=most)
    told = (
        rf"stopped: {most + 1} rows failed, more than extract\.max_failures allows \({most}\), see .*; {done} of 12"
    )
    with pytest.raises(Stopped, match=told):
        extract(dataset, "text", Refusing(refused), settings, root=tmp_path)
    status = LatentsFile(path).status
    assert ((status == DONE).sum(), (status == FAILED).sum()) == (done, most + 1)
    assert sorted(reasons(path)) == refused[: most + 1]
    if most < 2:
        # Earlier failures count, unless they are tried again.
        with pytest.raises(Stopped, match=told):
            extract(dataset, "text", Refusing(refused), settings, root=tmp_path)
        assert np.array_equal(LatentsFile(path).status, status)
    report = extract(dataset, "text", Refusing(), settings, root=tmp_path, retry_failed=True)
    assert (report.done, report.failed) == (ROWS, 0)


def test_as_many_failures_as_are_allowed_stop_nothing(dataset: Dataset, tmp_path: Path) -> None:
    assert extract(dataset, "text", Refusing([1, 5]), blocks_of(4, max_failures=2), root=tmp_path).complete


def test_an_encoder_in_trouble_stops_the_run_and_says_what_is_kept(
    dataset: Dataset, tmp_path: Path, path: Path
) -> None:
    told = r"no such colour; 4 of 12 rows of .*colours\.h5 are done, and the same command goes on from there"
    with pytest.raises(FusemixError, match=told):
        extract(dataset, "text", Refusing([6], FusemixError), blocks_of(4), root=tmp_path)
    assert LatentsFile(path).status.tolist() == [DONE] * 4 + [TO_DO] * 8
    assert not failures_path(path).exists()
    assert extract(dataset, "text", Refusing(), blocks_of(4), root=tmp_path).encoded == ROWS - 4


def test_a_block_that_the_encoder_refuses_fails_where_the_encoder_still_encodes_another(
    dataset: Dataset, tmp_path: Path, path: Path
) -> None:
    report = extract(dataset, "text", Refusing(range(4, 8)), blocks_of(4), root=tmp_path)
    assert np.flatnonzero(LatentsFile(path).status == FAILED).tolist() == [4, 5, 6, 7]
    # Also where nothing else is left that could show it.
    again = extract(dataset, "text", Refusing(range(4, 8)), blocks_of(4), root=tmp_path, retry_failed=True)
    assert (again.done, again.encoded) == (report.done, 0) == (ROWS - 4, 0)


def test_an_encoder_that_breaks_on_the_way_stops_the_run(dataset: Dataset, tmp_path: Path, path: Path) -> None:
    class Breaking(Refusing):
        def encode(self, batch: Tensor) -> Tensor:
            latents = super().encode(batch)
            self.refused |= set(range(ROWS)) if 5 in self.encoded else set()
            return latents

    with pytest.raises(FusemixError, match=r"failed on each of 4 rows, first with ValueError: no such colour; 8 of"):
        extract(dataset, "text", Breaking(), blocks_of(4), root=tmp_path)
    assert LatentsFile(path).status.tolist() == [DONE] * 8 + [TO_DO] * 4


def test_the_run_says_what_it_is_about_to_do(
    dataset: Dataset, tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped_at(6, dataset, tmp_path)
    capsys.readouterr()
    extract(dataset, "text", Refusing([7]), root=tmp_path)
    before, last = capsys.readouterr().err.splitlines()
    size = path.stat().st_size / 1e6
    assert before == f"extract text by colours: 8 of 12 rows to do, {size:.1f} MB on disk, in float32"
    assert last.startswith("extract text by colours: 12/12 rows, ")
    assert last.endswith("/s, 1 failed")


def test_an_encoder_given_by_name_says_where_it_runs(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    register_encoder("written-colours", "tests.extract.colours:of_captions")
    extract(dataset, "text", "written-colours", root=tmp_path, device="cpu")
    assert "MB on disk, on cpu in float32" in capsys.readouterr().err


def test_shards_are_merged_into_what_one_run_writes(dataset: Dataset, tmp_path: Path, path: Path) -> None:
    whole = extract(dataset, "text", Refusing([6, 9]), blocks_of(3), root=tmp_path / "whole")
    reports = [
        extract(dataset, "text", Refusing([6, 9]), blocks_of(3), root=tmp_path, shard=(index, 5))
        for index in range(1, 6)
    ]
    assert [report.path.name for report in reports] == [f"colours.shard-{index}-of-5.h5" for index in range(1, 6)]
    assert sum(report.rows for report in reports) == ROWS
    merged = merge([report.path for report in reports])
    assert merged.path == path
    expected = LatentsFile(whole.path)
    for column in ("items", "sources", "splits", "status", "content", "checksum"):
        assert getattr(merged, column).tolist() == getattr(expected, column).tolist(), column
    assert np.array_equal(merged.read(), expected.read())
    assert merged.provenance == expected.provenance
    assert failures_path(path).read_text() == failures_path(whole.path).read_text()
    report = extract(dataset, "text", Colours("text"), root=tmp_path)
    assert (report.encoded, report.complete, report.failed) == (0, True, 2)
    # The rows that failed can be mended in the merged file as in any other.
    assert extract(dataset, "text", Colours("text"), root=tmp_path, retry_failed=True).done == ROWS
    assert np.array_equal(LatentsFile(path).read(), expected_latents(ROWS))


def test_a_shard_is_resumed_and_not_taken_for_another(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=r"stopped: 2 of 6 rows of .*shard-2-of-2"):
        extract(dataset, "text", Refusing([8], KeyboardInterrupt), blocks_of(2), root=tmp_path, shard=(2, 2))
    encoder = Refusing()
    report = extract(dataset, "text", encoder, blocks_of(2), root=tmp_path, shard=(2, 2))
    assert (report.rows, report.encoded, sorted(encoder.encoded)) == (6, 4, [8, 9, 10, 11])
    report.path.rename(report.path.with_name("colours.h5"))
    with pytest.raises(FusemixError, match=r"holds shard 2 of 2, not all rows of its dataset: it was renamed"):
        extract(dataset, "text", Refusing(), root=tmp_path)
    with pytest.raises(FusemixError, match="there is no shard 3 of 2"):
        extract(dataset, "text", Refusing(), root=tmp_path, shard=(3, 2))


def test_a_shard_without_rows_is_complete(dataset: Dataset, tmp_path: Path) -> None:
    report = extract(dataset, "text", Colours("text"), root=tmp_path, shard=(1, 100))
    assert (report.rows, report.complete) == (0, True)


def test_an_object_whose_precision_differs_is_the_same_encoder_where_nothing_is_left(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, "text", Colours("text"), root=tmp_path)
    other = Colours("text")
    other.spec = EncoderSpec(name="colours", modality="text", dim=3, weights="none", dtype="int8")
    assert extract(dataset, "text", other, root=tmp_path).complete
