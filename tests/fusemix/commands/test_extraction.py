"""`fusemix extract` and `fusemix merge` on a manifest, with encoders found by entry point."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from fusemix.extract.catalogue import CATALOGUE, EncoderEntry
from fusemix.latents.file import LatentsFile
from fusemix.latents.inspection import inspect_file
from tests.extract.colours import expected_latents
from tests.fusemix.commands.conftest import Fusemix
from tests.fusemix.commands.small_world import command, environment, install_encoders, mended, write_world

IMAGES, TEXTS = "latents/pairs/image/colours.h5", "latents/pairs/text/written-colours.h5"


def test_all_encoders_of_a_recipe_run_once(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path)
    first = fusemix("extract", recipe, "--root", tmp_path)
    assert first.code == 0
    assert "pairs: 8 items (train 4, val 2, test 2); rows: image 8, text 8" in first
    for path in (IMAGES, TEXTS):
        assert f"{path}: 8 of 8 rows done, 8 encoded now" in first
        np.testing.assert_array_equal(LatentsFile(tmp_path / path).read(), expected_latents(8))
    again = fusemix("extract", recipe, "--root", tmp_path)
    assert (again.code, again.count(": complete, 8 rows"), again.err) == (0, 2, "")


def test_failed_rows_are_told_by_the_exit_code_until_they_are_mended(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path, broken={2, 5})
    for _ in range(2):
        told = fusemix("extract", recipe, "--root", tmp_path)
        assert told.code == 3
        assert "6 of 8 rows done" in told
        assert "2 failed (see " in told
    mended(tmp_path / "002.png")
    assert "1 failed (see" in (retried := fusemix("extract", recipe, "--root", tmp_path, "--retry-failed"))
    assert (retried.code, "1 encoded now" in retried) == (3, True)
    mended(tmp_path / "005.png")
    assert fusemix("extract", recipe, "--root", tmp_path, "--retry-failed").code == 0
    np.testing.assert_array_equal(LatentsFile(tmp_path / IMAGES).read(), expected_latents(8))


def test_more_failures_than_allowed_stop_it_with_a_code_of_their_own(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path, broken={1, 2})
    told = fusemix("extract", recipe, "--root", tmp_path, "--max-failures", "1")
    assert told.code == 5
    [line] = told.err.splitlines()[-1:]
    assert line.startswith("stopped: 2 rows failed, more than extract.max_failures allows (1), see ")
    assert not (tmp_path / TEXTS).exists()
    assert fusemix("extract", recipe, "--root", tmp_path, "--max-failures", "2").code == 3


@pytest.mark.slow
@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_extraction_says_so_and_goes_on_by_the_same_command(tmp_path: Path, asked: signal.Signals) -> None:
    recipe = write_world(tmp_path, rows=400)
    arguments = command("extract", recipe, "--root", tmp_path, "--extract.block_rows", "1")
    where = environment(install_encoders(tmp_path))
    with subprocess.Popen(arguments, env=where, stdout=-1, stderr=-1, text=True, start_new_session=True) as running:
        while not ((tmp_path / IMAGES).exists() and LatentsFile(tmp_path / IMAGES).done > 3):
            assert running.poll() is None
            time.sleep(0.01)
        seen = inspect_file(tmp_path / IMAGES)
        os.killpg(running.pid, asked)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert seen.written_by is not None
    assert seen.written_by.process == running.pid
    assert 3 < seen.done < 400
    assert err.splitlines()[-1].startswith("stopped: ")
    assert err.splitlines()[-1].endswith("; run the same command to go on")
    done = LatentsFile(tmp_path / IMAGES).done
    assert 3 < done < 400
    end = subprocess.run(arguments, env=where, capture_output=True, text=True, check=True)
    assert f"400 of 400 rows done, {400 - done} encoded now" in end.stdout
    np.testing.assert_array_equal(LatentsFile(tmp_path / IMAGES).read(), expected_latents(400))


def test_shards_are_merged_into_what_one_job_gives(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path, rows=11, broken={7})
    codes = [fusemix("extract", recipe, "--root", tmp_path, "--shard", f"{i}/3").code for i in (2, 1, 3)]
    assert codes == [3 if 11 * (i - 1) // 3 <= 7 < 11 * i // 3 else 0 for i in (2, 1, 3)]
    merged = fusemix("merge", tmp_path / IMAGES)
    assert (merged.code, merged) == (3, f"{tmp_path / IMAGES}: 10 of 11 rows done, 1 failed, from 3 shards\n")
    shards = sorted((tmp_path / TEXTS).parent.glob("*.shard-*.h5"))
    named = fusemix("merge", *shards, "--out", tmp_path / "elsewhere.h5")
    assert (named.code, named) == (0, f"{tmp_path / 'elsewhere.h5'}: 11 of 11 rows done, 0 failed, from 3 shards\n")
    np.testing.assert_array_equal(LatentsFile(tmp_path / "elsewhere.h5").read(), expected_latents(11))
    fusemix("merge", tmp_path / TEXTS)
    after = fusemix("extract", recipe, "--root", tmp_path)
    assert f"{tmp_path / IMAGES}: 10 of 11 rows done, 0 encoded now" in after
    assert f"{tmp_path / TEXTS}: complete, 11 rows" in after
    [failure] = (tmp_path / IMAGES).with_suffix(".failures.jsonl").read_text().splitlines()
    assert json.loads(failure)["item"] == "item007"


def test_shards_that_are_not_all_there_are_not_merged(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path)
    fusemix("extract", recipe, "--root", tmp_path, "--shard", "1/2")
    told = fusemix("merge", tmp_path / IMAGES)
    assert (told.code, told) == (2, "")
    assert told.err.startswith("error: of 2 shards 1 are missing: 2")
    assert not (tmp_path / IMAGES).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "3/2"], "there is no shard 3 of 2"),
        (["--shard", "0/2"], "there is no shard 0 of 2"),
        (["--dataset.path", "none.csv"], "there is no manifest none.csv"),
        (["--dataset.delimiter", ";"], "dataset 'manifest' has no setting 'delimiter'"),
        (
            ["--dataset", "{path: pairs.csv}"],
            "a dataset is a name, a manifest file, or a mapping with the keys reader",
        ),
        (["--encoders.text", "written-colors"], "unknown encoder 'written-colors': did you mean 'written-colours'?"),
        (["--encoders.text.pooling", "cls"], "encoder 'written-colours' has no setting 'pooling': it has none"),
        (["--encoders.text", "[written-colours, written-colours]"], "encoders.text: 'written-colours' stands twice"),
        (["--encoders.audio", "colours"], "dataset 'pairs' has no 'audio'"),
        (["--encoders.text", "colours"], "encoder 'colours' is for image, not text"),
    ],
)
def test_a_slip_is_one_line(fusemix: Fusemix, tmp_path: Path, options: list[str], message: str) -> None:
    told = fusemix("extract", write_world(tmp_path), "--root", tmp_path / "root", *options)
    assert told.code == 2
    last = told.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in told.err


def test_a_slip_in_the_last_name_shows_before_the_first_encoder_works(fusemix: Fusemix, tmp_path: Path) -> None:
    told = fusemix("extract", write_world(tmp_path), "--root", tmp_path / "root", "--encoders.text", "none")
    assert (told.code, len(told.err.splitlines())) == (2, 1)
    assert not (tmp_path / "root").exists()


def test_a_missing_package_of_the_last_encoder_shows_before_the_first_works(
    fusemix: Fusemix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = replace(CATALOGUE["bge-base"], packages=("json", "no_such_library"))
    monkeypatch.setitem(CATALOGUE, "bge-base", lacking)
    told = fusemix("extract", write_world(tmp_path), "--root", tmp_path / "root", "--encoders.text", "bge-base")
    assert told.code == 2
    assert told.err == (
        "error: encoder 'bge-base' needs the package 'no_such_library': pip install 'fusemix[text]'\n"
    )
    assert not (tmp_path / "root").exists()


def test_who_has_all_latents_needs_no_package(
    fusemix: Fusemix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_world(tmp_path)
    fusemix("extract", recipe, "--root", tmp_path)
    ours = EncoderEntry("colours", "image", "tests.extract.colours:of_pictures", packages=("no_such_library",))
    monkeypatch.setitem(CATALOGUE, "colours", ours)
    told = fusemix("extract", recipe, "--root", tmp_path)
    assert (told.code, told.count(": complete, 8 rows")) == (0, 2), told.err


def test_what_a_reader_has_to_tell_and_content_in_two_splits_are_noted(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path)
    shutil.copy(tmp_path / "000.png", tmp_path / "003.png")
    shutil.copy(tmp_path / "000.png", tmp_path / "001.png")
    lines = (tmp_path / "pairs.csv").read_text().splitlines()
    (tmp_path / "pairs.csv").write_text("\n".join([f"{lines[0]},mood", *(f"{line},fine" for line in lines[1:])]))
    told = fusemix("extract", recipe, "--root", tmp_path)
    assert told.code == 0
    assert [line for line in told.err.splitlines() if line.startswith("note: ")] == [
        f"note: {tmp_path}/pairs.csv: columns left out: 'mood'",
        f"note: 1 contents of {tmp_path / IMAGES} lie in more than one split",
    ]
    again = fusemix("extract", recipe, "--root", tmp_path)
    assert again.err.count("note: ") == 1


def test_content_in_two_splits_is_noted_once_for_all_encoders_of_a_modality(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path)
    lines = (tmp_path / "pairs.csv").read_text().splitlines()
    caption = lines[1].split(",")[2]
    lines[4] = lines[4].replace(lines[4].split(",")[2], caption)
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    both = ["--encoders.text", "[written-colours, {name: bright-colours, times: 3}]"]
    told = fusemix("extract", recipe, "--root", tmp_path, *both)
    assert (told.code, len(list(tmp_path.glob("latents/pairs/text/*.h5")))) == (0, 2), told.err
    [note] = [line for line in told.err.splitlines() if line.startswith("note: ")]
    assert note.startswith(f"note: 1 contents of {tmp_path / 'latents/pairs/text/written-colours.h5'} lie in more")


def test_a_run_with_concatenated_encoders_is_trained_and_searched(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe = write_world(tmp_path, rows=64)
    both = ["--encoders.text", "[written-colours, {name: bright-colours, times: 3}]"]
    fused = fusemix("fuse", recipe, "--root", tmp_path, *both)
    assert (fused.code, "fusemix search" in fused) == (0, True), fused.err
    config = json.loads((tmp_path / "runs/mine/joint_space/config.json").read_text())
    assert config["encoders"]["text"]["name"] == "written-colours+bright-colours times 3, cut True"
    assert config["encoders"]["text"]["dim"] == 6
    [path] = (tmp_path / "latents/pairs/text").glob("bright-colours@*.h5")
    assert LatentsFile(path).done == 64
    saved = (tmp_path / "runs/mine/recipe.yaml").read_text()
    assert "name: pairs" in saved
    # Neither the dataset's files nor its manifest are needed to search.
    (tmp_path / "pairs.csv").unlink()
    found = fusemix("search", "1 0 254", "--run", tmp_path / "runs/mine", "--root", tmp_path, "-k", "3")
    assert (found.code, len(found.splitlines())) == (0, 4), found.err
    assert "image rows of pairs closest to '1 0 254'" in found


def test_rows_that_one_of_two_encoders_lacks_are_warned_of(fusemix: Fusemix, tmp_path: Path) -> None:
    recipe, site = write_world(tmp_path, rows=64), install_encoders(tmp_path)
    both = ["--encoders.text", "[written-colours, same-written-colours]", "--root", str(tmp_path)]
    fusemix("extract", recipe, *both)
    with h5py.File(tmp_path / TEXTS, "r+") as file:
        file["status"][0] = 2
    done = subprocess.run(command("fuse", recipe, *both), env=environment(site), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [warned] = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert warned.startswith("warning: 1 of 64 text rows are left out: not each of ")
