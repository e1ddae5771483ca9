from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.objective import Edge, Objective
from fusemix.training.validation import Validation
from tests.fusemix.synthetic import world
from tests.fusemix.training.short_runs import SETTINGS, SHORT, THREE, Recorder, metrics, same, train


def mrr(space: JointSpace, latents: PairedLatents, edge: Edge) -> float:
    return Validation(latents, [edge])(space)["mrr"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "toys"
    train(world(), SETTINGS, run=folder)
    return folder


def test_training_makes_items_found_that_it_never_saw(run: Path) -> None:
    test, edge = world().split("test"), Edge("image", "text")
    untrained = train(world(), replace(SHORT, steps=1, learning_rate=1e-9, warmup_steps=0))
    assert mrr(untrained, test, edge) < 0.3
    assert mrr(JointSpace.load(run / "joint_space"), test, edge) > 0.7


def test_the_space_that_validated_best_is_returned_and_saved(run: Path) -> None:
    recorder = Recorder()
    space = train(world(), SETTINGS, on_validation=recorder)
    assert recorder.steps == [20, 40, 60, 80, 100]
    assert mrr(space, world().split("val"), Edge("image", "text")) == max(recorder.mrr)
    assert same(space, JointSpace.load(run / "joint_space"))
    assert not space.training


def test_a_worse_validation_does_not_replace_a_better_one(tmp_path: Path) -> None:
    class Unlearning(Objective):
        def __call__(self, embeddings: Any, batch: Any, space: JointSpace) -> Any:
            loss, edges = super().__call__(embeddings, batch, space)
            return (-loss if (tmp_path / "training_state.pt").exists() else loss), edges

    recorder, edge = Recorder(), Edge("image", "text")
    settings = replace(SETTINGS, steps=60)
    space = train(world(), settings, objective=Unlearning((edge,)), run=tmp_path, on_validation=recorder)
    assert recorder.mrr[0] > max(recorder.mrr[1:])
    assert mrr(space, world().split("val"), edge) == recorder.mrr[0]
    assert same(space, JointSpace.load(tmp_path / "joint_space"))


def test_every_step_is_logged(run: Path) -> None:
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(100))
    assert all(math.isfinite(line["loss"]) and line["loss"] == line["loss/image-text"] for line in lines)
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[0]["learning_rate"] == 1e-6
    assert lines[10]["learning_rate"] == 3e-3
    assert len({line["lambda"] for line in lines}) == 100
    assert [line["step"] + 1 for line in lines if "mrr" in line] == [20, 40, 60, 80, 100]


def test_a_finished_run_is_loaded_and_not_trained_again(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    recorder = Recorder()
    space = train(world(), SETTINGS, run=run, on_validation=recorder)
    assert recorder.steps == []
    assert same(space, JointSpace.load(run / "joint_space"))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_seed_decides_everything() -> None:
    first = train(world())
    torch.manual_seed(99)
    assert same(first, train(world()))
    assert not same(first, train(world(), replace(SHORT, seed=1)))


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    train(world(), replace(SHORT, steps=2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_test_split_is_never_read() -> None:
    latents = world()
    spoilt = replace(
        latents, modalities={n: replace(m, values=m.values.clone()) for n, m in latents.modalities.items()}
    )
    for modality in spoilt.split("test").modalities.values():
        modality.values[modality.rows] = torch.nan
    assert same(train(spoilt), train(latents))


def test_three_modalities_share_one_space() -> None:
    latents = world(modalities=THREE, missing=0.3)
    space = train(latents, SETTINGS)
    assert space.modalities == ["audio", "image", "text"]
    for edge in Objective.all_pairs(THREE).edges:
        assert mrr(space, latents.split("test"), edge) > 0.4, edge


def test_edges_choose_what_is_aligned(tmp_path: Path) -> None:
    latents = world(modalities=THREE)
    objective = Objective((Edge("image", "text", 1.0, "own"), Edge("audio", "text", 0.5)))
    space = train(latents, objective=objective, run=tmp_path)
    assert list(space.log_scales) == ["own", "shared"]
    for line in metrics(tmp_path):
        assert line["loss"] == pytest.approx(line["loss/image-text"] + 0.5 * line["loss/audio-text"], rel=1e-6)
        assert {"temperature/own", "temperature/shared"} <= line.keys()


def test_without_mixup_lambda_is_one_and_all_items_loaded_are_pairs(tmp_path: Path) -> None:
    settings = replace(SHORT, mixup="none", batch_size=210)
    train(world(), settings, run=tmp_path)
    assert {line["lambda"] for line in metrics(tmp_path)} == {1.0}
    with pytest.raises(FusemixError, match="a step takes 420"):
        train(world(), replace(settings, mixup="halves"))


@pytest.mark.filterwarnings("ignore:step .. the temperature")
def test_temperatures_stay_in_their_bounds(tmp_path: Path) -> None:
    for start, rate in ((0.001, 0.2), (0.5, 0.2)):
        folder = tmp_path / str(start)
        train(world(), replace(SHORT, temperature=start, learning_rate=rate, warmup_steps=0), run=folder)
        assert all(0.000999 < line["temperature/shared"] < 0.500001 for line in metrics(folder))


def test_training_stops_where_validation_stops_improving(tmp_path: Path) -> None:
    settings = replace(SHORT, steps=40, learning_rate=1e-12, final_learning_rate=0, validate_every=2, patience=3)
    recorder = Recorder()
    stopped = train(world(), settings, run=tmp_path, on_validation=recorder)
    assert recorder.steps == [2, 4, 6, 8]
    assert same(stopped, train(world(), settings, run=tmp_path, on_validation=recorder))
    assert recorder.steps == [2, 4, 6, 8]


def test_steps_that_validation_does_not_divide_end_with_one() -> None:
    recorder = Recorder()
    train(world(), replace(SHORT, steps=5, validate_every=3), on_validation=recorder)
    assert recorder.steps == [3, 5]


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(world())
    assert list(tmp_path.iterdir()) == []


def test_too_few_items_modalities_or_splits_are_refused() -> None:
    with pytest.raises(FusemixError, match=r"14 items to train on, but a step takes 48 .*at most 7 with mixup"):
        train(world(20))
    with pytest.raises(FusemixError, match=r"two modalities or more, not \['image'\]"):
        train(world(modalities={"image": 3}, missing=0))
    with pytest.raises(FusemixError, match="no item in the split 'val'"):
        train(world().split("train"))


def test_a_constant_dimension_and_a_huge_scale_do_no_harm() -> None:
    latents = world()
    image = latents["image"]
    scaled = image.values * torch.logspace(-6, 6, image.values.shape[1])
    scaled[:, 0] = 3.0
    wild = replace(latents, modalities={**latents.modalities, "image": replace(image, values=scaled)})
    recorder = Recorder()
    train(wild, SETTINGS, on_validation=recorder)
    assert recorder.mrr[-1] > 0.5


def test_items_of_equal_content_do_no_harm() -> None:
    names = [f"{index:03d}" for index in range(60)]
    rng = np.random.default_rng(0)
    latents = PairedLatents.from_arrays(
        {"image": rng.normal(size=(60, 4)).astype(np.float32), "text": rng.normal(size=(60, 3)).astype(np.float32)},
        {"image": names, "text": names},
        {name: "val" if index % 3 == 0 else "train" for index, name in enumerate(names)},
        sources={"text": ["a sound"] * 60},
    )
    recorder = Recorder()
    train(latents, replace(SHORT, batch_size=10), on_validation=recorder)
    # Every image is right for the one caption that there is.
    assert recorder.mrr == [1.0] * 3


def warnings_of(latents: PairedLatents, **change: Any) -> list[str]:
    with pytest.warns(RuntimeWarning) as told:
        train(latents, replace(SHORT, learning_rate=1e-30, final_learning_rate=0, **change))
    return [str(warning.message) for warning in told]


def test_a_temperature_at_its_bound_is_warned_of_once() -> None:
    (told,) = warnings_of(world(), temperature=0.5)
    assert told.startswith("step 2: the temperature 'shared' is 0.5, at a bound of [0.001, 0.5]: lower")


def test_embeddings_that_collapse_are_warned_of_once() -> None:
    latents = world()
    flat = replace(latents["image"], values=torch.ones_like(latents["image"].values))
    (told,) = warnings_of(replace(latents, modalities={**latents.modalities, "image": flat}))
    assert told.startswith(
        "step 2: the image embeddings collapse, two of the validation split have a cosine of 1.000"
    )


def test_float16_on_a_cpu_is_refused() -> None:
    with pytest.raises(FusemixError, match=r"fuse.precision is float16, which only GPUs train in: choose auto"):
        train(world(), replace(SHORT, precision="float16"))


def test_what_will_be_trained_and_how_is_told_before_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    train(world(), replace(SHORT, micro_batch=10))
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("arrays: 210 items")
    where = told.index("adapters compute in float32 on the CPU, 10 items at once")
    assert told[where - 1].startswith("2 adapters, 4.3K parameters")
    assert told[where + 1].startswith("memory: a step will take ")
    assert told[where + 2].startswith("step 2: loss ")
