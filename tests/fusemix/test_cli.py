"""The command line as a user sees it; what it says to bad input is in `test_bad_input`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import fusemix
from fusemix.cli import main
from fusemix.extract import datasets, register_encoder, registry
from fusemix.extract.datasets import load_dataset
from fusemix.latents.file import LatentsFile
from tests.conftest import SHORT_TRAINING, FusedEmoji, RunCommand
from tests.extract.colours import coloured
from tests.fusemix.training.short_runs import metrics

IMAGES, TEXTS = "latents/emoji/image/efficientnet-lite0.h5", "latents/emoji/text/minilm-l6-v2.h5"
WITHOUT_TORCH = """
import sys
from fusemix.cli import main
try:
    main(sys.argv[1:])
finally:
    for heavy in ("torch", "transformers", "PIL", "soundfile", "timm", "open_clip", "ctranslate2"):
        assert heavy not in sys.modules, heavy
"""
STOPPED_AT_14 = """
import sys
import fusemix.training.learner
from fusemix.cli import main
steps, learning_rate = [], fusemix.training.learner.learning_rate

def stopping(step, settings):
    steps.append(step)
    if steps.count(14) == 1 and step == 14:
        raise KeyboardInterrupt
    return learning_rate(step, settings)

fusemix.training.learner.learning_rate = stopping
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert ended.code == 130
main(sys.argv[1:])
print(steps)
"""
COLOURS = """
name: mine
dataset: coloured
encoders: {image: colours, text: written-colours}
extract: {workers: 1}
fuse: {steps: 4, warmup_steps: 1, validate_every: 2, batch_size: 8, joint_dim: 8, adapter: {depth: 0}}
benchmark: {draws: 9, seeds: [0]}
"""


@pytest.fixture(autouse=True)
def keep_signal_handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def own_root(fused_emoji: FusedEmoji, tmp_path: Path) -> Path:
    """Return a root with latents of its own, and no runs."""
    shutil.copytree(fused_emoji.root / "latents", tmp_path / "latents")
    return tmp_path


def light(*arguments: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    """Run a command that must do without torch and any model library."""
    program = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    environment = {**os.environ, "COLUMNS": str(columns)}
    return subprocess.run(program, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_lists_commands_and_recipes_without_torch(arguments: list[str]) -> None:
    done = light(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("extract RECIPE", "fuse RECIPE", "benchmark RUN|RECIPE", "search QUERY", "recipes: 5m-dinov2-bge, "):
        assert word in done.stdout


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_help_lists_all_commands_and_exit_codes_on_a_narrow_terminal(columns: int) -> None:
    done = light(columns=columns)
    assert all(len(line) <= columns for line in done.stdout.splitlines())
    for name in (
        "extract",
        "merge",
        "inspect",
        "fuse",
        "benchmark",
        "compare",
        "bakeoff",
        "search",
        "encoders",
        "check-encoder",
    ):
        [line] = [line for line in done.stdout.splitlines() if line.startswith(f"  {name} ")]
        assert len(line.split()) > 2, "the summary begins beside the name"
    shown = " ".join(done.stdout.split())
    for code in (
        "0 complete 1",
        "2 bad input",
        "3 complete, but some rows failed",
        "4 a check",
        "5 stopped",
        "130 stopped",
    ):
        assert code in shown


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (
            ["extract", "--help"],
            ["--root", "--retry-failed", "--max-failures N", "--shard I/N", "--extract.workers", "--from-arrays"],
        ),
        (
            ["fuse", "--help"],
            ["--run", "--restart", "--accept-changes", "--fuse.batch_size", "Pairs that enter the loss"],
        ),
        (["fuse", "emoji", "--help"], ["--fuse.batch_size"]),
        (["fuse", "--help"], ["--fuse.adapter.kind {", "--fuse.adapters ADAPTERS Modality -> its adapter"]),
        (["benchmark", "--help"], ["--benchmark.seeds", "Bootstrap draws over items", "--pair A B"]),
        (["bakeoff", "--help"], ["--fractions F,F", "--seeds N", "--methods M,M", "--budget N", "--pair A B"]),
        (["search", "--help"], ["query", "--run", "--gallery", "-k"]),
        (["extract", "--from-arrays", "--help"], ["--items IDS", "--spec", "--out", "--splits", "--tensor"]),
        (["merge", "--help"], ["SHARD ...", "--out", "3 complete, but some rows failed"]),
        (["inspect", "--help"], ["--json", "--verify", "--encode K", "--recipe", "4 a check found a fault"]),
        (["encoders", "--help"], ["fusemix encoders"]),
        (["check-encoder", "--help"], ["--set KEY=VALUE", "--device"]),
    ],
)
def test_each_command_explains_its_options_without_torch(arguments: list[str], options: list[str]) -> None:
    done = light(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for option in options:
        assert option in " ".join(done.stdout.split())


def test_the_help_of_extract_leaves_out_what_it_does_not_use() -> None:
    shown = light("extract", "--help").stdout
    assert "--fuse" not in shown
    assert "--benchmark" not in shown


@pytest.mark.parametrize("command", ["extract", "fuse", "search"])
def test_help_speaks_of_options_and_not_of_python(command: str) -> None:
    shown = light(command, "--help").stdout.partition("\n\n")[2]
    for words in ("type: ", "Mapping[", "Literal[", "Path to a configuration file", ".help"):
        assert words not in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_the_version_is_told() -> None:
    assert light("--version").stdout == f"fusemix {fusemix.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fuze"], "unknown command 'fuze': did you mean 'fuse'?"),
        (["fuse"], "which recipe? fusemix fuse RECIPE, with one of 5m-dinov2-bge, "),
        (["extract", "--root", "x", "emoji"], "which recipe? fusemix extract RECIPE"),
        (["fuse", "emojy"], "unknown recipe 'emojy': did you mean 'emoji'?"),
        (["fuse", "emoji.yaml"], "no recipe file at emoji.yaml"),
        (["fuse", "emoji", "--fuse.step", "3"], "unknown option --fuse.step: did you mean '--fuse.steps'?"),
        (["extract", "emoji", "--run", "x"], "unknown option --run"),
        (["fuse", "emoji", "--fuse.steps", "many"], "Got value: many"),
        (["fuse", "emoji", "--fuse.steps", "0"], "fuse.steps is 0: it must be at least 1"),
        (["inspekt"], "unknown command 'inspekt': did you mean 'inspect'?"),
        (["extract", "emoji", "--retry_failed"], "unknown option --retry_failed: did you mean '--retry-failed'?"),
        (["extract", "emoji", "--shard", "2"], "--shard is '2': write I/N, such as 1/8 to 8/8"),
        (["extract", "emoji", "--max-failures", "few"], "Got value: few"),
        (["extract", "emoji", "--max-failures", "-1"], "extract.max_failures is -1: it must be at least 0"),
        (["extract", "--from-arrays", "x.npy", "--items", "x"], "see fusemix extract --help"),
        (["inspect"], "file; see fusemix inspect --help"),
        (["inspect", "none.h5"], "no latents file at none.h5"),
        (["inspect", "x.h5", "--vérify"], "unknown option --vérify: did you mean '--verify'?"),
        (["merge"], "shards; see fusemix merge --help"),
        (["merge", "none.h5"], "no file at none.h5, nor shards of it: none.shard-I-of-N.h5"),
        (["encoders", "--all"], "unknown option --all"),
        (["check-encoder"], "name; see fusemix check-encoder --help"),
        (["search"], "query, run; see fusemix search --help"),
        (["search", "a cat"], "run; see fusemix search --help"),
        (["search", "a cat", "--runs", "x"], "unknown option --runs: did you mean '--run'?"),
        (["search", "a cat", "--run", "x", "-k", "many"], "Got value: many; see fusemix search --help"),
    ],
)
def test_a_slip_is_one_line_at_once(arguments: list[str], message: str) -> None:
    done = light(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_fuse_leaves_everything_that_a_run_needs(fused_emoji: FusedEmoji) -> None:
    for path in ("recipe.yaml", "joint_space/config.json", "joint_space/adapters.safetensors", "metrics.jsonl"):
        assert (fused_emoji.run / path).is_file()
    for path, rows in ((IMAGES, 1914), (TEXTS, 3010)):
        file = LatentsFile(fused_emoji.root / path)
        assert file.done == file.rows == rows
        assert file.damaged_rows() == []
    assert "1914 of 1914 rows done, 1914 encoded now" in fused_emoji.output
    assert "3010 of 3010 rows done, 3010 encoded now" in fused_emoji.output
    assert "License: CC BY-SA 4.0" in fused_emoji.output.splitlines()[-1]


def test_fuse_measures_retrieval_and_the_table_shows_it(fused_emoji: FusedEmoji) -> None:
    result: dict[str, Any] = json.loads((fused_emoji.root / "results" / "retrieval" / "emoji.json").read_text())
    assert (result["schema_version"], result["benchmark"], result["run"]) == (2, "retrieval", "emoji")
    assert (result["dataset"], result["split"], result["items"]) == ("emoji", "test", 380)
    assert result["fingerprint"] == load_dataset("emoji").fingerprint
    assert {"torch", "fusemix", "cores"} <= set(result["machine"])
    there, back = result["directions"]
    assert (there["queries"], there["gallery"], back["queries"], back["gallery"]) == (380, 611, 611, 380)
    for direction in (there, back):
        recalls = [direction["metrics"][f"R@{k}"] for k in (1, 5, 10)]
        assert recalls[0]["value"] < recalls[1]["value"] < recalls[2]["value"]
        assert recalls[2]["value"] > 5 * direction["chance"]["R@10"]
        for metric in direction["metrics"].values():
            assert metric["low"] <= metric["value"] <= metric["high"]
    [line] = [line for line in fused_emoji.output.splitlines() if line.startswith("R@10 %")]
    assert f"{100 * there['metrics']['R@10']['value']:.1f} [" in line
    assert f"{100 * back['metrics']['R@10']['value']:.1f} [" in line


def test_a_second_run_neither_extracts_nor_trains(
    fused_emoji: FusedEmoji, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        fused_emoji.root / IMAGES,
        fused_emoji.root / TEXTS,
        fused_emoji.run / "joint_space/adapters.safetensors",
    ]
    before = [file.stat().st_mtime_ns for file in files]
    main(["fuse", "emoji", "--root", str(fused_emoji.root), *SHORT_TRAINING])
    shown = capsys.readouterr()
    assert shown.out.count(": complete, ") == 3, "two latents files and the run"
    assert "step " not in shown.err
    assert [file.stat().st_mtime_ns for file in files] == before
    table = fused_emoji.output.index("Retrieval on emoji")
    assert shown.out[shown.out.index("Retrieval on emoji") :] == fused_emoji.output[table:]


def test_a_stopped_training_goes_on_to_the_same_joint_space(fused_emoji: FusedEmoji) -> None:
    # In a process of its own, because what ran before in this one may change the last bits of a product.
    command = ["fuse", "emoji", "--root", str(fused_emoji.root), "--run", "stopped", *SHORT_TRAINING]
    program = [sys.executable, "-c", STOPPED_AT_14, *command]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert "stopped; run the same command to go on" in done.stderr
    assert done.stdout.splitlines()[-1] == str([*range(15), *range(10, 20)])
    weights = Path("joint_space") / "adapters.safetensors"
    whole, stopped = fused_emoji.run, fused_emoji.root / "runs" / "stopped"
    assert (stopped / weights).read_bytes() == (whole / weights).read_bytes()
    assert metrics(stopped) == metrics(whole)


def test_other_settings_need_another_name_or_restart(own_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fuse", "emoji", "--root", str(own_root), *SHORT_TRAINING, "--benchmark.draws", "9", "--fuse.steps"]
    main([*command, "2"])
    with pytest.raises(SystemExit):
        main([*command, "3"])
    told = capsys.readouterr().err.splitlines()[-1]
    assert "fuse.steps was 2, now 3" in told
    assert "--restart" in told
    main([*command, "3", "--restart"])
    assert len((own_root / "runs" / "emoji" / "metrics.jsonl").read_text().splitlines()) == 3


def test_an_item_without_caption_is_no_query(own_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = LatentsFile(own_root / TEXTS)
    first = [texts.items[texts.splits == split][0] for split in ("train", "val", "test")]
    of_them = np.isin(texts.items.astype(str), first)
    with h5py.File(own_root / TEXTS, "r+") as file:
        file["status"][of_them] = 2
    main(["fuse", "emoji", "--root", str(own_root), *SHORT_TRAINING, "--fuse.steps", "2", "--benchmark.draws", "9"])
    result = json.loads((own_root / "results" / "retrieval" / "emoji.json").read_text())
    assert (result["items"], result["directions"][0]["queries"]) == (380, 379)
    assert " failed (see " in capsys.readouterr().out


def test_a_recipe_of_one_s_own_is_benchmarked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda name: coloured(tmp_path, 64))
    monkeypatch.setattr(registry, "_registered", {})
    register_encoder("colours", "tests.extract.colours:of_pictures")
    register_encoder("written-colours", "tests.extract.colours:of_captions")
    (tmp_path / "mine.yaml").write_text(COLOURS)
    main(["benchmark", str(tmp_path / "mine.yaml"), "--root", str(tmp_path)])
    result = json.loads((tmp_path / "results" / "comparison" / "mine.json").read_text())
    assert [method["name"] for method in result["methods"]] == ["fusemix", "no-mixup", "ridge"]
    assert "Retrieval on coloured, test split: 16 items" in capsys.readouterr().out


def test_the_search_that_fuse_proposes_finds_cats(
    fused_emoji: FusedEmoji, command: RunCommand, tmp_path: Path
) -> None:
    [proposal] = [line for line in fused_emoji.output.splitlines() if line.startswith("try: ")]
    program, *arguments = shlex.split(proposal.removeprefix("try: "))
    assert program == "fusemix"
    done = command(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    head, *hits, attribution = done.stdout.splitlines()
    assert "image rows of emoji closest to 'a smiling cat'" in head
    assert "CC BY-SA 4.0" in attribution
    assert len(hits) == 10
    scores = [float(hit.split()[1]) for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert sum(" cat" in hit for hit in hits) >= 3


def test_a_picture_is_searched_for_in_the_captions(
    fused_emoji: FusedEmoji, capsys: pytest.CaptureFixture[str]
) -> None:
    root = load_dataset("emoji").root
    assert root is not None
    query = str(root / "1F63A.svg")
    main(
        [
            "search",
            query,
            "--modality",
            "image",
            "--run",
            str(fused_emoji.run),
            "--root",
            str(fused_emoji.root),
            "-k",
            "20",
        ]
    )
    head, *hits, _ = capsys.readouterr().out.splitlines()
    assert head.startswith("text rows of emoji closest to ")
    assert len(hits) == 20
    assert any("cat" in hit for hit in hits)
