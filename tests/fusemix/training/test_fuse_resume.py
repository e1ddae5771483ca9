"""Runs that were stopped, killed, or began with other settings."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fusemix.adapters.settings import AdapterSettings
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import DatasetStamp
from fusemix.objective import Edge, Objective
from tests.fusemix.synthetic import encoder, world
from tests.fusemix.training.interrupted_run import CASES, latents_of
from tests.fusemix.training.short_runs import SHORT, THREE, Interrupted, Recorder, metrics, same, train

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_again_and_again_ends_in_the_same_bits(case: str, tmp_path: Path) -> None:
    script = [sys.executable, "-m", "tests.fusemix.training.interrupted_run", case, str(tmp_path), "12"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines().count("killed") >= 4
    for folder in ("", "refit") if case == "refit" else ("",):
        assert metrics(tmp_path / "killed" / folder) == metrics(tmp_path / "whole" / folder)
    for name in ("joint_space/adapters.safetensors", "joint_space/config.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_run_goes_on_with_the_same_numbers(case: str, tmp_path: Path) -> None:
    settings = replace(CASES[case], steps=14)
    whole = train(latents_of(case), settings, run=tmp_path / "whole")
    for moment in (3, 6, 7, 13):
        with pytest.raises(Interrupted):
            train(latents_of(case), settings, run=tmp_path / "killed", on_step=Recorder(interrupt_at=moment))
    resumed = train(latents_of(case), settings, run=tmp_path / "killed")
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert same(resumed, whole)


def test_an_interrupted_run_goes_on_from_its_last_validation(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(world(), run=tmp_path, on_validation=Recorder(interrupt_at=4))
    recorder = Recorder()
    resumed = train(world(), run=tmp_path, on_validation=recorder)
    assert recorder.steps == [4, 6]
    assert same(resumed, train(world()))
    assert [line["step"] for line in metrics(tmp_path)] == list(range(6))


def test_callbacks_are_told_what_is_logged(tmp_path: Path) -> None:
    steps, validations = Recorder(), Recorder()
    train(world(), run=tmp_path, on_step=steps, on_validation=validations)
    assert steps.steps == [1, 2, 3, 4, 5, 6]
    assert validations.steps == [2, 4, 6]
    for line, told in zip(metrics(tmp_path), steps.figures, strict=True):
        assert line.pop("step") >= 0
        assert told.items() >= {name: value for name, value in line.items() if name in told}.items()
        assert told["items_per_second"] > 0 < told["memory_gb"]
        assert told.keys() >= {"loss", "loss/image-text", "temperature/shared", "learning_rate", "lambda", "skipped"}
    assert [line["mrr"] for line in metrics(tmp_path) if "mrr" in line] == validations.mrr


@pytest.mark.parametrize("moment", [2, 3, 5])
def test_a_callback_stops_a_run_that_goes_on_later(moment: int, tmp_path: Path) -> None:
    whole = train(world(), run=tmp_path / "whole")
    recorder = Recorder()
    stopped = train(world(), run=tmp_path / "half", on_step=Recorder(stop_at=moment), on_validation=recorder)
    assert len(metrics(tmp_path / "half")) == moment
    assert recorder.steps == list(range(2, moment + 1, 2))
    assert same(stopped, JointSpace.load(tmp_path / "half" / "joint_space"))
    assert not stopped.training
    later = Recorder()
    resumed = train(world(), run=tmp_path / "half", on_step=later)
    assert later.steps == list(range(moment + 1, 7))
    assert same(resumed, whole)
    assert metrics(tmp_path / "half") == metrics(tmp_path / "whole")


def test_a_validation_can_stop_a_run_too() -> None:
    recorder = Recorder(stop_at=4)
    space = train(world(), on_validation=recorder)
    assert recorder.steps == [2, 4]
    assert same(space, train(world(), on_step=Recorder(stop_at=4)))


def test_a_run_that_is_stopped_before_its_first_validation_is_validated_once(tmp_path: Path) -> None:
    recorder = Recorder()
    stopped = train(world(), run=tmp_path, on_step=Recorder(stop_at=1), on_validation=recorder)
    assert recorder.steps == [1]
    assert same(stopped, JointSpace.load(tmp_path / "joint_space"))
    resumed = train(world(), run=tmp_path)
    whole = train(world(), run=tmp_path / "whole")
    assert [line["loss"] for line in metrics(tmp_path)] == [line["loss"] for line in metrics(tmp_path / "whole")]
    assert same(resumed, whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 32}, "fuse.batch_size was 24, now 32"),
        ({"adapter": AdapterSettings(expansion=2, dropout=0.3)}, "fuse.adapter.dropout was 0.2, now 0.3"),
        ({"seed": 4}, "fuse.seed was 0, now 4"),
        ({"micro_batch": 4}, "fuse.micro_batch was None, now 4"),
        ({"adapters": {"text": AdapterSettings("linear")}}, "fuse.adapters.text.kind was None, now 'linear'"),
    ],
)
def test_a_run_with_other_settings_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    train(world(), run=tmp_path)
    before = metrics(tmp_path)
    with pytest.raises(FusemixError, match=f"was started with other settings .*{message}.* --restart"):
        train(world(), replace(SHORT, **change), run=tmp_path)
    assert metrics(tmp_path) == before


def test_where_latents_wait_is_no_setting_of_a_run(tmp_path: Path) -> None:
    train(world(), run=tmp_path, on_step=Recorder(stop_at=3))
    train(world(), replace(SHORT, residency="host"), run=tmp_path)
    train(world(), run=tmp_path / "whole")
    assert metrics(tmp_path) == metrics(tmp_path / "whole")


def with_specs(latents: PairedLatents, **fields: str) -> PairedLatents:
    specs = {name: encoder(name, m.values.shape[1], **fields) for name, m in latents.modalities.items()}
    return replace(latents, modalities={n: replace(m, spec=specs[n]) for n, m in latents.modalities.items()})


def test_a_run_on_other_latents_or_edges_is_refused(tmp_path: Path) -> None:
    latents = with_specs(world())
    train(latents, run=tmp_path)
    with pytest.raises(FusemixError, match=r"encoder of image\.pooling was '', now 'mean'"):
        train(with_specs(latents, pooling="mean"), run=tmp_path)
    with pytest.raises(FusemixError, match="dataset was 'arrays', now 'birds'"):
        train(replace(latents, dataset=DatasetStamp("birds")), run=tmp_path)
    for edge in (Edge("text", "image"), Edge("image", "text", 0.5), Edge("image", "text", 1.0, "own")):
        with pytest.raises(FusemixError, match=r"edges was 'image-text .*', now"):
            train(latents, objective=Objective((edge,)), run=tmp_path)


def test_accepted_changes_go_on_from_the_weights_that_were_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(world(), run=tmp_path)
    saved = torch.load(tmp_path / "training_state.pt", weights_only=True)["learner"]["space"]
    settings = replace(SHORT, steps=9, learning_rate=1e-30, final_learning_rate=0, weight_decay=0, batch_size=20)
    recorder = Recorder()
    train(world(), settings, run=tmp_path, accept_changes=True, on_validation=recorder)
    after = torch.load(tmp_path / "training_state.pt", weights_only=True)["learner"]["space"]
    assert all(torch.equal(saved[name], after[name]) for name in saved)
    assert recorder.steps == [8, 9]
    assert "goes on at step 6 with other settings: fuse.batch_size was 24, now 20; fuse." in capsys.readouterr().err
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(9))
    assert [number for number, line in enumerate(lines) if "changes" in line] == [6]
    assert lines[6]["changes"][0] == "fuse.batch_size was 24, now 20"
    assert "fuse.steps was 6, now 9" in lines[6]["changes"]
    # From here on these are the run's settings.
    train(world(), settings, run=tmp_path)
    with pytest.raises(FusemixError, match=r"fuse\.batch_size was 20, now 24"):
        train(world(), run=tmp_path)


def test_accepted_settings_of_the_optimiser_hold(tmp_path: Path) -> None:
    def largest(decay: float) -> float:
        settings = replace(SHORT, steps=30, validate_every=30, learning_rate=0.1, weight_decay=decay, warmup_steps=0)
        run = tmp_path / str(decay)
        train(world(), replace(settings, steps=1, weight_decay=0.0), run=run)
        space = train(world(), settings, run=run, accept_changes=True)
        return float(space.adapter("image").get_parameter("blocks.0.residual.1.weight").detach().norm())

    assert largest(5.0) < 0.2 * largest(0.0)


def test_accepting_changes_where_there_are_none_changes_nothing(tmp_path: Path) -> None:
    train(world(), run=tmp_path / "whole")
    train(world(), run=tmp_path / "half", on_step=Recorder(stop_at=4))
    train(world(), run=tmp_path / "half", accept_changes=True)
    assert metrics(tmp_path / "half") == metrics(tmp_path / "whole")


@pytest.mark.parametrize("before", ["auto", "float32"])
def test_another_precision_can_be_accepted(before: Any, tmp_path: Path) -> None:
    train(world(), replace(SHORT, precision=before), run=tmp_path, on_step=Recorder(stop_at=4))
    train(world(), replace(SHORT, precision="bfloat16"), run=tmp_path, accept_changes=True)
    assert metrics(tmp_path)[4]["changes"] == [f"fuse.precision was {before!r}, now 'bfloat16'"]


def test_weights_of_another_shape_cannot_be_accepted(tmp_path: Path) -> None:
    train(world(modalities=THREE), run=tmp_path)
    before = metrics(tmp_path)
    for settings, message in (
        (replace(SHORT, joint_dim=8), r"adapters\.audio\.blocks\.2\.bias was \(16,\), now \(8,\) and \d+ more"),
        (replace(SHORT, edges=(Edge("image", "text"),)), r"adapters\.audio\.\S+ was \S+, now None and"),
    ):
        with pytest.raises(FusemixError, match=f"the checkpoint in .* does not fit .*{message}.*--restart"):
            train(world(modalities=THREE), settings, run=tmp_path, accept_changes=True)
    wider = {**THREE, "image": 25}
    with pytest.raises(FusemixError, match=r"started with other settings \(encoder of image.dim was 24, now 25\)"):
        train(world(modalities=wider), run=tmp_path)
    with pytest.raises(FusemixError, match=r"does not fit .*image\.\S+ was \(\d+,\), now"):
        train(world(modalities=wider), run=tmp_path, accept_changes=True)
    assert metrics(tmp_path) == before


def test_a_broken_checkpoint_is_told_in_one_line(tmp_path: Path) -> None:
    train(world(), run=tmp_path)
    path = tmp_path / "training_state.pt"
    raw = path.read_bytes()
    for kept in (0, len(raw) // 2):
        path.write_bytes(raw[:kept])
        with pytest.raises(FusemixError, match=r"training_state\.pt cannot be read .* --restart") as told:
            train(world(), run=tmp_path)
        assert "\n" not in str(told.value)


def unlearning(run: Path) -> Objective:
    class Unlearning(Objective):
        """Makes each validation after the first worse."""

        def __call__(self, embeddings: Any, batch: Any, space: JointSpace) -> Any:
            loss, edges = super().__call__(embeddings, batch, space)
            return (-loss if (run / "training_state.pt").exists() else loss), edges

    return Unlearning((Edge("image", "text"),))


def test_other_data_make_the_best_figure_start_anew(tmp_path: Path) -> None:
    latents = world()
    train(latents, run=tmp_path, objective=unlearning(tmp_path))
    birds = replace(latents, dataset=DatasetStamp("birds"))
    recorder = Recorder()
    settings = replace(SHORT, steps=8, learning_rate=1e-30, final_learning_rate=0)
    space = train(birds, settings, run=tmp_path, accept_changes=True, on_validation=recorder)
    best = torch.load(tmp_path / "training_state.pt", weights_only=True)["state"]
    assert (best["best_step"], best["best_mrr"]) == (8, recorder.mrr[-1])
    assert same(space, JointSpace.load(tmp_path / "joint_space"))


class Breaking(Objective):
    """Has no finite loss once there is a checkpoint."""

    run: Path

    def __call__(self, embeddings: Any, batch: Any, space: JointSpace) -> Any:
        loss, edges = super().__call__(embeddings, batch, space)
        return loss * (math.nan if (self.run / "training_state.pt").exists() else 1.0), edges


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    objective = Breaking((Edge("image", "text"),))
    object.__setattr__(objective, "run", tmp_path / "run")
    with pytest.raises(
        FusemixError, match=r"the loss of step 2 is nan \(temp.*checkpoint of step 2 is kept: low"
    ) as stop:
        train(world(), objective=objective, run=tmp_path / "run")
    told = str(stop.value)
    for name in ("image", "text"):
        assert re.search(
            rf"{name}: norms up to \d\S* of latents and 1 of embeddings, 0 of \d+ \S+ not .* item0\d\d\d", told
        )
    assert "\n" not in told
    assert [line["step"] for line in metrics(tmp_path / "run")] == [0, 1]
    assert JointSpace.load(tmp_path / "run" / "joint_space").modalities == ["image", "text"]
    # The same call, with what was broken mended, goes on as if nothing had happened.
    assert same(train(world(), run=tmp_path / "run"), train(world()))


def test_a_run_that_diverges_says_so_and_can_go_on_at_a_lower_rate(tmp_path: Path) -> None:
    wild = replace(SHORT, learning_rate=1e30, warmup_steps=0, validate_every=6)
    with pytest.raises(FusemixError, match=r"the \S+ of step \d \S+ n.* no checkpoint was written: lower fuse.learn"):
        train(world(), wild)
    train(world(), run=tmp_path, on_step=Recorder(stop_at=2))
    with pytest.raises(FusemixError, match=r"checkpoint of step 2 is kept: lower .* --accept-changes goes on"):
        train(world(), replace(SHORT, learning_rate=1e30), run=tmp_path, accept_changes=True)
    train(world(), replace(SHORT, learning_rate=1e-4), run=tmp_path, accept_changes=True)
    assert metrics(tmp_path)[2]["changes"] == ["fuse.learning_rate was 0.003, now 0.0001"]


def test_a_failing_callback_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    def fail(step: int, figures: Mapping[str, float]) -> None:
        if step == 5:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(world(), run=tmp_path, on_step=fail)
    assert [line["step"] for line in metrics(tmp_path)] == [0, 1, 2, 3]
    assert JointSpace.load(tmp_path / "joint_space").modalities == ["image", "text"]
    assert same(train(world(), run=tmp_path), train(world()))
