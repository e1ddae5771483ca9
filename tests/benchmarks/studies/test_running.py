from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fusemix.benchmarks.studies import running
from fusemix.benchmarks.studies.design import Data, Job, Level, jobs_of
from fusemix.benchmarks.studies.measuring import Record, measure
from fusemix.benchmarks.studies.running import named_jobs, path_of, read, run
from fusemix.errors import FusemixError

from .small_study import FUSE, SMALL, WORLD


def written(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*.json")}


def test_a_killed_study_goes_on_with_the_runs_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[Job] = []

    def until_killed(job: Job, root: Path) -> Record:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(job)
        return measure(job, root)

    monkeypatch.setattr(running, "measure", until_killed)
    with pytest.raises(KeyboardInterrupt):
        run([SMALL], tmp_path)
    before = written(tmp_path)
    assert len(before) == 3
    monkeypatch.setattr(running, "measure", measure)
    capsys.readouterr()
    run([SMALL], tmp_path)
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("3 of 7 runs are there; the others take about ")
    assert [line.split(":")[0] for line in told[1:]] == [
        "1/4 small, without, seed 1",
        "2/4 small, raw latents",
        "3/4 small, ridge map",
        "4/4 small, ceiling",
    ]
    after = written(tmp_path)
    assert {path: after[path] for path in before} == before
    assert {path_of(job, tmp_path) for _, job in named_jobs(SMALL)} == set(after)
    run([SMALL], tmp_path)
    assert written(tmp_path) == after


def test_a_file_says_what_was_run_and_what_it_gave(tmp_path: Path) -> None:
    job = Job(Data(WORLD), "ceiling", ("first", "second"))
    assert read(job, tmp_path) is None
    study = replace(SMALL, levels=SMALL.levels[:1], seeds=1)
    run([study], tmp_path)
    record = read(job, tmp_path)
    assert record is not None
    assert record.to_dict() == {**measure(job, tmp_path).to_dict()}
    [trained] = jobs_of(study, study.levels[0])
    stored = json.loads(path_of(trained, tmp_path).read_text())
    assert stored["job"]["method"]["mixup"] == "halves"
    assert stored["job"]["data"]["source"]["train"] == 120
    assert stored["machine"]["torch"]


def test_runs_that_studies_share_are_done_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(
        SMALL, name="other", levels=(Level("base", "the base"), Level("slow", "less", {"learning_rate": 1e-4}))
    )
    run([SMALL, other], tmp_path)
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("0 of 9 runs are there")
    assert [line.split(" ")[1] for line in told[1:]].count("other,") == 2


def test_a_run_is_known_by_what_decides_its_figures(tmp_path: Path) -> None:
    job = Job(Data(WORLD), FUSE, ("first", "second"))
    paths = {
        path_of(one, tmp_path)
        for one in (
            job,
            replace(job, data=Data(WORLD, 0.5)),
            replace(job, data=Data(replace(WORLD, seed=1))),
            replace(job, method=replace(FUSE, steps=7)),
            replace(job, method=replace(FUSE, seed=1)),
            replace(job, method="ridge map"),
        )
    }
    assert len(paths) == 6
    assert path_of(job, tmp_path).name.endswith("-seed0.json")
    assert path_of(job, tmp_path).stem[:12] == path_of(replace(job, method=replace(FUSE, seed=1)), tmp_path).stem[:12]


def test_the_time_of_a_run_grows_with_its_steps_and_its_batch(tmp_path: Path) -> None:
    job = Job(Data(WORLD), FUSE, ("first", "second"))
    seconds = running.seconds_of(job, tmp_path)
    assert running.seconds_of(replace(job, method=replace(FUSE, steps=12)), tmp_path) == 2 * seconds
    assert running.seconds_of(replace(job, method=replace(FUSE, batch_size=30)), tmp_path) < seconds / 2
    assert running.seconds_of(replace(job, method="ceiling"), tmp_path) > 0


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    job = Job(Data(WORLD), "ceiling", ("first", "second"))
    path = path_of(job, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text('{"splits": {')
    with pytest.raises(FusemixError, match=r"cannot be read .*: remove it and run the study again"):
        read(job, tmp_path)
