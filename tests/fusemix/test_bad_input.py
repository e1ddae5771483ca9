"""Bad input: one clear line on stderr, a non-zero exit code, no traceback, and nothing finished is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import pytest
import torch

from fusemix.cli import main
from tests.conftest import ONE_SIDE, FusedEmoji

IMAGES, TEXTS = "latents/emoji/image/efficientnet-lite0.h5", "latents/emoji/text/minilm-l6-v2.h5"
SHORT = (
    *ONE_SIDE,
    *("--fuse.steps", "2", "--fuse.validate_every", "1", "--fuse.batch_size", "64", "--fuse.adapter.depth", "0"),
)


class Refusal(Protocol):
    """Runs a command that must fail and returns the last line of stderr."""

    def __call__(self, *arguments: str | Path, after_progress: bool = False) -> str: ...


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Iterator[Refusal]:
    def run(*arguments: str | Path, after_progress: bool = False) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        lines = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2
        assert lines[-1].startswith("error: ")
        assert len(lines) == 1 or after_progress
        return lines[-1]

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def root(fused_emoji: FusedEmoji, tmp_path: Path) -> Path:
    """Return a root with latents of its own, and a run without what training needs to go on."""
    shutil.copytree(fused_emoji.root / "latents", tmp_path / "latents")
    shutil.copytree(fused_emoji.run, tmp_path / "runs" / "emoji", ignore=shutil.ignore_patterns("training_state.pt"))
    return tmp_path


@pytest.fixture
def read_only_root(fused_emoji: FusedEmoji, tmp_path: Path) -> Iterator[Path]:
    """Yield a root that cannot be written; it holds the latents."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.geteuid() != 0:
        (folder / "latents").symlink_to(fused_emoji.root / "latents")
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("root can write everywhere, and no disk can be mounted here")
    try:
        (folder / "latents").symlink_to(fused_emoji.root / "latents")
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def change_provenance(path: Path, part: str, **fields: str) -> None:
    with h5py.File(path, "r+") as file:
        provenance: dict[str, Any] = json.loads(file.attrs["provenance"])
        provenance[part].update(fields)
        file.attrs["provenance"] = json.dumps(provenance)


def of_another_dataset(root: Path) -> None:
    change_provenance(root / IMAGES, "dataset", fingerprint="0123456789abcdef")


def of_another_modality(root: Path) -> None:
    shutil.copy(root / TEXTS, root / IMAGES)


def truncated(root: Path) -> None:
    os.truncate(root / IMAGES, (root / IMAGES).stat().st_size // 2)


def of_a_newer_format(root: Path) -> None:
    with h5py.File(root / TEXTS, "r+") as file:
        file.attrs["format_version"] = 99


def no_latents_at_all(root: Path) -> None:
    (root / TEXTS).write_text("hello")


def not_a_number(root: Path) -> None:
    with h5py.File(root / IMAGES, "r+") as file:
        file["latents"][5, 7] = np.nan


def without_validation_split(root: Path) -> None:
    for path in (root / IMAGES, root / TEXTS):
        with h5py.File(path, "r+") as file:
            codes = h5py.check_enum_dtype(file["split"].dtype)
            splits = file["split"][:]
            file["split"][:] = np.where(splits == codes["val"], codes["train"], splits)


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (
            of_another_dataset,
            IMAGES,
            "holds latents of another dataset or another version of it ('emoji', 0123456789abcdef",
        ),
        (of_another_modality, IMAGES, "holds latents of another dataset or another version of it"),
        (truncated, IMAGES, "truncated"),
        (of_a_newer_format, TEXTS, "has latents format 99; this fusemix reads up to 1: pip install -U fusemix"),
        (no_latents_at_all, TEXTS, "is truncated or not a latents file"),
        (not_a_number, "", "image latent of row 5 (item '0033-FE0F-20E3', '0033-FE0F-20E3.svg') is NaN or infinite"),
        (
            without_validation_split,
            "",
            "no item in the split 'val': training takes train and val",
        ),
    ],
)
def test_damaged_latents_are_refused_by_name_and_left_alone(
    root: Path, refusal: Refusal, damage: Callable[[Path], None], file: str, message: str
) -> None:
    damage(root)
    before = [(root / path).read_bytes() for path in (IMAGES, TEXTS)]
    line = refusal("fuse", "emoji", "--root", root, "--run", "new", *SHORT)
    assert message in line
    assert not file or str(root / file) in line
    assert [(root / path).read_bytes() for path in (IMAGES, TEXTS)] == before
    assert not (root / "runs" / "new").exists()


def test_latents_of_another_encoder_are_refused_by_a_trained_run(root: Path, refusal: Refusal) -> None:
    change_provenance(root / IMAGES, "encoder", revision="2")
    line = refusal("search", "a cat", "--run", root / "runs" / "emoji", "--root", root)
    assert "the image adapter was trained for another encoder than these latents come from" in line
    assert "revision: '' / '2'" in line


def test_a_run_of_another_encoder_embeds_nothing(root: Path, refusal: Refusal) -> None:
    change_provenance(root / TEXTS, "encoder", revision="2")
    config = root / "runs" / "emoji" / "joint_space" / "config.json"
    trained = json.loads(config.read_text())
    trained["encoders"]["text"]["revision"] = "2"
    config.write_text(json.dumps(trained))
    line = refusal("search", "a cat", "--run", root / "runs" / "emoji", "--root", root)
    assert (
        "the text adapter was trained for another encoder or version of it (trained / here: revision: '2' / ''"
        in line
    )


def test_fewer_items_than_a_step_takes(fused_emoji: FusedEmoji, refusal: Refusal) -> None:
    line = refusal(
        "fuse", "emoji", "--root", fused_emoji.root, "--run", "large", *ONE_SIDE, "--fuse.batch_size", "671"
    )
    assert "1340 items to train on, but a step takes 1342" in line
    assert "set fuse.batch_size to at most 670" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--benchmark.split", "tset"], "there is no item of the split 'tset' at all in emoji: nothing to measure"),
        (["--dataset", "emojis"], "unknown dataset 'emojis': did you mean 'emoji'?"),
        (["--encoders.text", "minilm"], "unknown encoder 'minilm': did you mean 'minilm-l6-v2'?"),
        (["--encoders", "{image: efficientnet-lite0, txt: minilm-l6-v2}"], "dataset 'emoji' has no 'txt'"),
        (["--encoders.audio", "minilm-l6-v2"], "dataset 'emoji' has no 'audio': choose one of image, text"),
        (["--encoders", "{image: efficientnet-lite0}"], "fusing takes two modalities or more, not image"),
        (["--fuse.adapters.txt.depth", "1"], "fuse.adapters.txt: no encoder of 'txt': did you mean 'text'?"),
        (["--fuse.edges", "[{a: image, b: txt}]"], "edge image-txt: no latents of 'txt': did you mean 'text'?"),
        (
            ["--fuse.dataset_weights.emojis", "1"],
            "fuse.dataset_weights.emojis: no such dataset: did you mean 'emoji'?",
        ),
        (["--fuse.dataset_weights.emoji", "0"], "fuse.dataset_weights sum to 0: nothing would be left to train on"),
        (["--dataset", "[emoji, emoji]"], "dataset: 'emoji' stands twice; give each dataset once"),
        (["--device", "tpu"], "unknown device 'tpu': choose auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_wrong_name_is_refused_before_any_work(
    fused_emoji: FusedEmoji, refusal: Refusal, options: list[str], message: str
) -> None:
    assert message in refusal("fuse", "emoji", "--root", fused_emoji.root, "--run", "new", *ONE_SIDE, *options)
    assert not (fused_emoji.root / "runs" / "new").exists()


def test_a_wrong_last_encoder_is_refused_before_the_first_works(refusal: Refusal, tmp_path: Path) -> None:
    assert "unknown encoder 'minilm'" in refusal("extract", "emoji", "--root", tmp_path, "--encoders.text", "minilm")
    assert not (tmp_path / "latents").exists()


@pytest.mark.parametrize(
    ("command", "option", "message"),
    [
        (
            "fuse",
            ["--benchmark.protocol", "coco5k"],
            "benchmark.protocol: there is no 'coco5k': did you mean 'coco-5k'?",
        ),
        ("benchmark", ["--benchmark.split", "tset"], "there is no item of the split 'tset' at all in emoji"),
        ("bakeoff", ["--benchmark.protocol", "clotho", "--benchmark.split", "val"], "clotho is for the split 'test'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_an_encoder_works(
    refusal: Refusal, tmp_path: Path, command: str, option: list[str], message: str
) -> None:
    assert message in refusal(command, "emoji", "--root", tmp_path, "--fuse.refit", "false", *option)
    assert not (tmp_path / "latents").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(refusal: Refusal, tmp_path: Path) -> None:
    line = refusal("extract", "emoji", "--root", tmp_path, "--device", "cuda")
    assert "device 'cuda' asked for" in line
    assert "sees no CUDA GPU" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-k", "0"], "asked for the best 0: ask for at least 1"),
        (["--gallery", "sound"], "no latents of modality 'sound': choose one of image, text"),
        (["--modality", "sound"], "the joint space has no 'sound': choose one of image, text"),
        (["--modality", "image"], "no file at a cat: a query of the modality 'image' is a file"),
        (["--root", "/nowhere"], "no latents file at /nowhere/latents/emoji/"),
        (["--run", "/nowhere"], "no run in /nowhere; train one with: fusemix fuse RECIPE"),
        (["--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_a_search_that_cannot_be(fused_emoji: FusedEmoji, refusal: Refusal, options: list[str], message: str) -> None:
    usual = ["--run", str(fused_emoji.run), "--root", str(fused_emoji.root)]
    assert message in refusal("search", "a cat", *usual, *options)


def test_an_empty_query(fused_emoji: FusedEmoji, refusal: Refusal) -> None:
    line = refusal("search", " ", "--run", fused_emoji.run, "--root", fused_emoji.root)
    assert "text ' ' cannot be read: ValueError: an empty caption" in line


def test_a_run_whose_weights_are_broken(root: Path, refusal: Refusal) -> None:
    (root / "runs" / "emoji" / "joint_space" / "adapters.safetensors").write_bytes(b"broken")
    line = refusal("search", "a cat", "--run", root / "runs" / "emoji", "--root", root)
    assert f"the joint space in {root}/runs/emoji/joint_space cannot be read" in line


def test_no_permission_to_write_latents(read_only_root: Path, refusal: Refusal) -> None:
    line = refusal("extract", "emoji", "--root", read_only_root / "new", *ONE_SIDE)
    assert f"cannot write {read_only_root}/new/latents/emoji/image/efficientnet-lite0.h5" in line
    assert "with --root" in line


def test_no_permission_to_write_a_run(read_only_root: Path, refusal: Refusal) -> None:
    line = refusal("fuse", "emoji", "--root", read_only_root, *SHORT, after_progress=True)
    assert f"cannot write {read_only_root}/runs/emoji/" in line
    assert "with --root" in line


def test_no_space_left_for_latents(tiny_disk: Path, refusal: Refusal) -> None:
    line = refusal("extract", "emoji", "--root", tiny_disk, *ONE_SIDE)
    assert "no room in " in line
    assert "choose another folder with --root" in line
    assert not [path for path in tiny_disk.rglob("*") if path.is_file()]


@pytest.mark.parametrize("joint_dim", ["32", "512"])
def test_no_space_left_for_a_run(fused_emoji: FusedEmoji, tiny_disk: Path, refusal: Refusal, joint_dim: str) -> None:
    (tiny_disk / "latents").symlink_to(fused_emoji.root / "latents")
    options = [*SHORT, "--fuse.adapter.max_width", "null", "--fuse.joint_dim", joint_dim]
    line = refusal("fuse", "emoji", "--root", tiny_disk, *options, after_progress=True)
    # The narrow joint space still fits, its training state does not.
    part = "training_state.pt" if joint_dim == "32" else "joint_space/adapters.safetensors"
    assert f"cannot write {tiny_disk}/runs/emoji/{part}: No space left on device; free some space" in line
    assert not list(tiny_disk.rglob("*.part"))


def test_a_file_stands_where_a_run_belongs(fused_emoji: FusedEmoji, tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "latents").symlink_to(fused_emoji.root / "latents")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "emoji").touch()
    line = refusal("fuse", "emoji", "--root", tmp_path, *SHORT, after_progress=True)
    assert f"{tmp_path}/runs/emoji" in line
    assert (tmp_path / "runs" / "emoji").is_file()


def test_a_root_that_can_never_be(refusal: Refusal) -> None:
    assert "/proc/nowhere" in refusal("extract", "emoji", "--root", "/proc/nowhere")
    assert "File name too long" in refusal("extract", "emoji", "--root", "x" * 300)
