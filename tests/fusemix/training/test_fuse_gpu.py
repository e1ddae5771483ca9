"""Whole runs on a GPU; where there is none, `tests/test_pretended_gpu.py` has them run on one that is not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fusemix.benchmarks.per_query import per_query
from fusemix.embedder import Embedder
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.training.fuse import fuse
from fusemix.training.settings import FuseSettings
from tests.fusemix.synthetic import world
from tests.fusemix.training.short_runs import SHORT, THREE, Recorder, metrics

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

HALF = replace(SHORT, precision="float16")
FULL = replace(SHORT, precision="float32")
PLACES: tuple[Any, ...] = ("device", "host", "disk")
CASES = {
    "halves": HALF,
    "shift": replace(FULL, mixup="shift", mixup_lambda="pair", clip_norm=0.5),
    "slices": replace(HALF, micro_batch=7, captions="all"),
    "sigmoid": replace(FULL, anchor="text", temperature=0.1, mixup="none"),
    "refit": replace(HALF, refit=True),
}


def train(settings: FuseSettings, **options: Any) -> JointSpace:
    return fuse(world(150, THREE), settings, device="cuda", **options)


@pytest.mark.parametrize("case", CASES)
def test_a_run_on_a_gpu_takes_latents_from_wherever_they_wait(case: str) -> None:
    spaces = [train(replace(CASES[case], residency=place)).state_dict() for place in PLACES]
    for other in spaces[1:]:
        for name, value in other.items():
            torch.testing.assert_close(value, spaces[0][name], rtol=1e-3, atol=1e-4)


def test_a_run_on_a_gpu_goes_on_with_its_scale_moments_and_steps(tmp_path: Path) -> None:
    whole = train(HALF, run=tmp_path / "whole")
    train(HALF, run=tmp_path / "half", on_step=Recorder(stop_at=3))
    resumed = train(HALF, run=tmp_path / "half")
    assert {str(value.device) for value in resumed.state_dict().values()} == {"cpu"}
    for name, value in resumed.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert [line["step"] for line in metrics(tmp_path / "half")] == list(range(6))


def test_a_run_begun_on_a_gpu_goes_on_on_a_cpu(tmp_path: Path) -> None:
    train(FULL, run=tmp_path, on_step=Recorder(stop_at=3))
    recorder = Recorder()
    fuse(world(150, THREE), FULL, device="cpu", run=tmp_path, on_step=recorder)
    assert recorder.steps == [4, 5, 6]


def test_a_space_on_a_gpu_embeds_and_retrieves_as_on_a_cpu() -> None:
    latents: PairedLatents = world(150, THREE)
    space = train(SHORT)
    test = latents.split("test")
    for mine, theirs in zip(
        per_query(space, test, "image", "text", (1, 5)),
        per_query(space.to("cuda"), test, "image", "text", (1, 5)),
        strict=True,
    ):
        assert mine.ranks.tolist() == pytest.approx(theirs.ranks.tolist(), abs=1)
    assert space.encode("text", test["text"].values).device.type == "cpu"
    assert Embedder(space, {}, "cuda").space.adapter("text").mean.is_cuda
