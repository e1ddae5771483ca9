from __future__ import annotations

import json
from pathlib import Path

import pytest

from fusemix.benchmarks.diagnostics import diagnose
from fusemix.joint_space import JointSpace
from fusemix.search import run_latents
from tests.fusemix.commands.conftest import Fusemix
from tests.fusemix.commands.shades import write_run, write_shades


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shades")
    write_shades(root)
    return root


def test_the_figures_of_a_run_are_shown_and_kept(
    fusemix: Fusemix, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    told = fusemix("diagnose", "runs/shades", "--neighbours", "4")
    assert (told.code, told.err) == (0, "")
    assert max(map(len, told.splitlines())) <= 80
    latents = run_latents(".", "shades", {"image": "colours", "text": "written-colours"})
    expected = diagnose(JointSpace.load("runs/shades/joint_space"), latents, neighbours=4)
    image, text = expected.modalities
    [pair] = expected.pairs
    to_text, to_image = pair.hubness
    lines = [line.split() for line in told.splitlines()]
    for row in (
        ["image", "15", "3", f"{image.effective_rank:.1f}", f"{image.uniformity:.2f}"],
        ["text", "15", "3", f"{text.effective_rank:.1f}", f"{text.uniformity:.2f}"],
        ["image", "and", "text", "15", f"{pair.modality_gap:.3f}", f"{pair.alignment:.3f}"],
        ["image", "to", "text", f"{to_text.skewness:.2f}", f"{100 * to_text.never:.1f}"],
        ["text", "to", "image", f"{to_image.skewness:.2f}", f"{100 * to_image.never:.1f}"],
    ):
        assert row in lines
    assert any(line.startswith("4 nearest ") for line in told.splitlines())
    record = json.loads(Path("results/diagnostics/shades.json").read_text())
    assert (record["run"], record["split"]) == ("shades", "test")
    assert record["pairs"][0]["modality_gap"] == pytest.approx(pair.modality_gap)
    markdown = fusemix("diagnose", "runs/shades", "--neighbours", "4", "--markdown").splitlines()
    assert f"| image and text | 15 | {pair.modality_gap:.3f} | {pair.alignment:.3f} |" in markdown
    assert fusemix("diagnose", "runs/shades", "--dataset", "folded", "--split", "fold1").splitlines()[-1] == (
        "result: results/diagnostics/shades-folded-fold1.json"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("runs/shades", "--split", "tset"), "dataset 'shades' has no item in the split 'tset' (splits with items: "),
        (("runs/shades", "--dataset", "strange"), "the image adapter was trained for another encoder than these"),
        (("runs/shades", "--dataset", "shade"), "no latents file at latents/shade/image/colours.h5; make it with: "),
        (("runs/two",), "runs/two has the datasets a, b: choose one with --dataset"),
        (("runs/none",), "no run in runs/none; train one with: fusemix fuse RECIPE"),
        (
            ("runs/shades", "--neighbours", "99"),
            "hubness of 99 neighbours needs a gallery of more than 99 rows, not 15",
        ),
    ],
)
def test_bad_input_is_one_line(
    fusemix: Fusemix, world: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(world)
    write_run(world, "two", ["a", "b"])
    told = fusemix("diagnose", *arguments)
    assert (told.code, told) == (2, "")
    assert told.err.startswith(f"error: {said}")
    assert told.err.count("\n") == 1
