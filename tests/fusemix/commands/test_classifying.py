from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fusemix.benchmarks.labelled import holdout, labelled_rows, texts_as_labels
from fusemix.benchmarks.probes import NeighbourProbe, knn_probe, linear_probe
from fusemix.benchmarks.results import SCHEMA_VERSION
from fusemix.joint_space import JointSpace
from fusemix.latents.file import LatentsFile
from fusemix.latents.paired import PairedLatents
from fusemix.recipe import load_recipe
from tests.fusemix.commands.conftest import Fusemix, Told
from tests.fusemix.commands.shades import ITEMS, PRIMARY, write_classes, write_run, write_shades

WITHOUT_TORCH = """
import sys
from fusemix.cli import main
try:
    main(sys.argv[1:])
finally:
    assert "torch" not in sys.modules
"""
IMAGES = Path("latents/shades/image/colours.h5")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shades")
    write_shades(root)
    return root


@pytest.fixture
def root(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the folder of latents, runs and class names the current one."""
    monkeypatch.chdir(world)
    return world


def right(path: Path, split: str) -> npt.NDArray[np.bool_]:
    """Whether the strongest of red, green and blue is the one that each item is called by."""
    file, captions = LatentsFile(path), LatentsFile(path.parents[1] / "text" / "written-colours.h5")
    named = np.array([PRIMARY.index(text) for text in captions.sources])
    return np.asarray((file.read().astype(float).argmax(axis=1) == named)[file.splits == split])


def result(told: Told) -> dict[str, Any]:
    """What was written, where the last line says."""
    assert (told.code, told.err) == (0, "")
    assert max(map(len, told.splitlines())) <= 80
    record: dict[str, Any] = json.loads(Path(told.splitlines()[-1].removeprefix("result: ")).read_text())
    return record


@pytest.mark.usefixtures("root")
def test_a_runs_embeddings_are_classified_by_the_names_of_the_classes(fusemix: Fusemix) -> None:
    told = fusemix("classify", "zero-shot", "runs/shades", "--classes", "primary.json")
    expected = right(IMAGES, "test")
    lines = told.splitlines()
    assert lines[:3] == [
        "Zero-shot classification on shades, test split: 15 rows, 3 classes",
        "image embeddings of the run shades",
        "prompts primary/plain: 1 template for each name",
    ]
    assert lines[5].startswith(f"acc1                   {100 * expected.mean():.1f} [")
    assert lines[5].endswith("  33.3")
    assert 0.4 < expected.mean() < 1
    record = result(told)
    assert lines[-1] == "result: results/zero-shot/shades-image-primary.json"
    assert (record["benchmark"], record["run"]) == ("zero-shot", "shades")
    assert record["schema_version"] == SCHEMA_VERSION
    assert (record["splits"], record["kind"]) == (["test"], "embeddings")
    assert record["metrics"]["acc1"]["value"] == pytest.approx(expected.mean())
    assert "processor" in record["machine"]


@pytest.mark.usefixtures("root")
def test_all_folds_are_classified_where_the_dataset_has_folds(fusemix: Fusemix) -> None:
    usual = ["classify", "zero-shot", "runs/shades", "--classes", "primary.json", "--dataset", "folded"]
    told = fusemix(*usual)
    assert told.splitlines()[0] == "Zero-shot classification on folded, 3 folds: 60 rows, 3 classes"
    expected = [right(Path("latents/folded/image/colours.h5"), f"fold{n}").mean() for n in (1, 2, 3)]
    record = result(told)
    assert [fold["acc1"] for fold in record["folds"].values()] == pytest.approx(expected)
    table = {line.split("  ")[0]: line.split() for line in told.splitlines()}
    assert table["fold2"][1] == f"{100 * expected[1]:.1f}"
    assert table["mean of folds"][3] == f"{100 * np.mean(expected):.1f}"
    assert table["deviation"][1] == f"{100 * np.std(expected, ddof=1):.1f}"
    one = result(fusemix(*usual, "--split", "fold2"))
    assert (one["splits"], one["folds"]) == (["fold2"], {})
    assert one["metrics"]["acc1"]["value"] == pytest.approx(expected[1])


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("options", "probed", "settings"),
    [
        (("linear",), lambda rows: linear_probe(rows, holdout(rows)), "C 0.316"),
        (("knn",), lambda rows: knn_probe(rows, holdout(rows)), "20 neighbours, votes of temperature 0.07"),
        (
            ("knn", "--neighbours", "3", "--temperature", "none"),
            lambda rows: knn_probe(rows, holdout(rows), NeighbourProbe(3, None)),
            "3 neighbours, one vote each",
        ),
    ],
)
def test_probes_take_embeddings_or_latents(
    fusemix: Fusemix, options: tuple[str, ...], probed: Callable[[Any], Any], settings: str
) -> None:
    latents = PairedLatents.load({"image": IMAGES, "text": "latents/shades/text/written-colours.h5"})
    labels: dict[str, str | int] = dict(texts_as_labels(latents))
    for subject, space in (("runs/shades", JointSpace.load("runs/shades/joint_space")), (IMAGES, None)):
        rest = ["--classes", "primary.json", "--labels", "latents/shades/text/written-colours.h5"]
        told = fusemix("classify", options[0], subject, *rest, *options[1:])
        expected = probed(labelled_rows(latents, "image", labels, PRIMARY, space))
        record = result(told)
        assert settings in told.splitlines()[2]
        assert record["kind"] == ("latents" if space is None else "embeddings")
        assert record["metrics"] == json.loads(json.dumps(expected.to_dict()))["metrics"]


@pytest.mark.usefixtures("root")
def test_the_penalty_is_chosen_on_validation_on_request(fusemix: Fusemix) -> None:
    told = fusemix("classify", "linear", "runs/shades", "--classes", "primary.json", "--c", "validation")
    settings = result(told)["settings"]
    assert settings["C chosen on validation"]
    assert told.splitlines()[2] == f"C {settings['C']['test']:.4g}, chosen on validation"


@pytest.mark.usefixtures("root")
def test_a_probe_of_one_fold_is_that_of_all_folds_there(fusemix: Fusemix) -> None:
    usual = ["classify", "knn", "runs/shades", "--classes", "primary.json", "--dataset", "folded"]
    whole, one = result(fusemix(*usual)), result(fusemix(*usual, "--split", "fold3", "--out", "one.json"))
    assert list(whole["folds"]) == ["fold1", "fold2", "fold3"]
    assert one["metrics"]["acc1"]["value"] == pytest.approx(whole["folds"]["fold3"]["acc1"])
    assert Path("one.json").is_file()


@pytest.mark.usefixtures("root")
def test_an_unfinished_fit_is_told_once(fusemix: Fusemix) -> None:
    told = fusemix("classify", "linear", "runs/shades", "--classes", "primary.json", "--c", "100", "--max-iter", "1")
    assert result(told)["notes"][0].startswith("fold test: logistic regression with C = 100 did not converge in 1")
    assert told.count("did not converge") == 1


@pytest.mark.usefixtures("root")
def test_a_file_of_labels_may_leave_items_out_on_purpose(fusemix: Fusemix) -> None:
    lines = [f"item{row:02},{'' if row == 3 else ('cat', 'dog')[row % 2]}" for row in range(ITEMS)]
    Path("labels.csv").write_text("\n".join(["item,label", *lines]))
    told = fusemix("classify", "knn", IMAGES, "--labels", "labels.csv")
    record = result(told)
    assert (record["rows"], record["classes"], record["labels"]) == (14, 2, "labels.csv")
    assert "note: 1 items have no class and are left out" in told.splitlines()


@pytest.mark.usefixtures("root")
def test_many_prompts_are_told_while_they_are_embedded(fusemix: Fusemix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusemix.commands.classifying.MANY_PROMPTS", 3)
    usual = ["classify", "zero-shot", "runs/shades", "--classes", "primary.json"]
    told = fusemix(*usual, "--out", "told.json")
    assert re.fullmatch(r"embed prompts: 3/3 prompts, [\d.]+/s\n", told.err)
    monkeypatch.setattr("fusemix.commands.classifying.MANY_PROMPTS", 4)
    silent = result(fusemix(*usual))
    assert json.loads(Path("told.json").read_text())["metrics"] == silent["metrics"]


@pytest.mark.usefixtures("root")
def test_templates_may_be_given_one_by_one(fusemix: Fusemix) -> None:
    told = fusemix("classify", "zero-shot", "runs/shades", "--classes", "primary.json", "--templates", "{} ", " {}")
    assert told.splitlines()[2] == "prompts primary/own: 2 templates for each name"
    assert result(told)["own_templates"] == ["{} ", " {}"]


@pytest.mark.usefixtures("root")
def test_a_refitted_run_has_learned_from_val_too(fusemix: Fusemix) -> None:
    run = write_run(Path(), "refitted", {"reader": "manifest", "path": "none.csv", "name": "shades"})
    for method in ("zero-shot", "linear", "knn"):
        arguments = ["classify", method, "runs/refitted", "--classes", "primary.json", "--split", "val"]
        assert fusemix(*arguments).code == 0
    recipe = load_recipe(run / "recipe.yaml")
    replace(recipe, fuse=replace(recipe.fuse, refit=True)).save(run / "recipe.yaml")
    for method in ("zero-shot", "linear", "knn"):
        usual = ["classify", method, "runs/refitted", "--classes", "primary.json"]
        told = fusemix(*usual, "--split", "val")
        assert told.err.startswith("error: the run refitted was trained on the split 'val': classify another")
        assert fusemix(*usual).code == 0


ZERO_SHOT = ("zero-shot", "runs/shades", "--classes")
ANOTHER = ("--latents", "latents/strange/image/colours.h5", "--labels", "latents/shades/text/written-colours.h5")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "how? fusemix classify METHOD ..., with one of zero-shot, linear, knn"),
        (("knm", "runs/shades"), "unknown method 'knm': did you mean 'knn'?"),
        ((*ZERO_SHOT, "twice.json"), "the class name '255 0 0' repeats (classes 0, 1): give each class a name of"),
        ((*ZERO_SHOT, "placeless.json"), "the prompt template 'a photo' has no place for the name: put {} where it"),
        ((*ZERO_SHOT, "primary.json", "--templates", "a photo"), "the prompt template 'a photo' has no place for"),
        ((*ZERO_SHOT, "primary.json", "--templates", "plane"), "primary.json has no templates 'plane': did you mean"),
        ((*ZERO_SHOT, "imagnet"), "no class names are packaged as 'imagnet': did you mean 'imagenet'?"),
        ((*ZERO_SHOT, "primary.json", "--split", "tset"), "dataset 'shades' has no item in the split 'tset' (splits"),
        (
            (*ZERO_SHOT, "primary.json", "--split", "train"),
            "the run shades was trained on the split 'train': classify",
        ),
        ((*ZERO_SHOT, "primary.json", *ANOTHER), "the image adapter was trained for another encoder than these lat"),
        ((*ZERO_SHOT, "primary.json", "--dataset", "strange"), "the image adapter was trained for another encoder"),
        ((*ZERO_SHOT, "primary.json", "--modality", "imag"), "the joint space has no 'imag': did you mean 'image'?"),
        ((*ZERO_SHOT, "primary.json", "--text", "txt"), "the joint space has no 'txt': did you mean 'text'?"),
        (
            (*ZERO_SHOT, "primary.json", "--labels", "few.csv"),
            "few.csv has no label for the item 'item11' (and 12 more",
        ),
        (
            (*ZERO_SHOT, "primary.json", "--labels", "none.csv"),
            "no labels at none.csv: name a file that ends in .csv,",
        ),
        ((*ZERO_SHOT, "cifar10"), "item 'item03' has the label '"),
        (
            (*ZERO_SHOT, "primary.json", "--modality", "text"),
            "no labels for the items of 'shades': give the class of",
        ),
        (("zero-shot", IMAGES, "--classes", "cifar10"), f"{IMAGES} is a file: zero-shot classification needs a run"),
        (("zero-shot", "runs/two", "--classes", "cifar10"), "runs/two has the datasets a, b: choose one with --data"),
        (("zero-shot", "nowhere", "--classes", "cifar10"), "no run in nowhere; train one with: fusemix fuse RECIPE"),
        (("knn", "runs/shades"), "which classes? name them with --classes, or give each item's with --labels"),
        (("knn", IMAGES, "--classes", "primary.json"), "no labels for the items of 'shades': give the class of each"),
        (("knn", IMAGES, "--modality", "image", "--classes", "cifar10"), "--modality belongs to a run, and latents/"),
        (("knn", IMAGES, "--classes", "emoji-groups"), "no image row of 'shades' has a class: are these the labels"),
        (
            ("linear", "runs/shades", "--classes", "primary.json", "--split", "train"),
            "the run shades was trained on the split 'train': classify",
        ),
        (
            ("linear", IMAGES, "--labels", "latents/shades/text/written-colours.h5", "--split", "train"),
            "the split that is tested on must not be 'train'",
        ),
        (("linear", "runs/shades", "--classes", "primary.json", "--c", "much"), "--c much: give a number, or valid"),
    ],
)
def test_bad_input_is_one_line(fusemix: Fusemix, root: Path, arguments: tuple[str, ...], said: str) -> None:
    write_classes(root / "twice.json", (PRIMARY[0], *PRIMARY))
    write_classes(root / "placeless.json", PRIMARY, ("a photo",))
    write_run(root, "two", ["a", "b"])
    (root / "few.csv").write_text("item,label\nitem03,0\nitem07,0 0 255\n")
    told = fusemix("classify", *arguments)
    assert (told.code, told) == (2, "")
    assert told.err.startswith(f"error: {said}")
    assert told.err.count("\n") == 1


def test_a_slip_in_the_name_of_the_classes_is_told_before_anything_is_loaded() -> None:
    arguments = ["classify", "zero-shot", "runs/emoji", "--classes", "ecs50"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: no class names are packaged as 'ecs50': did you mean 'esc50'?; a file of your own needs its .json\n"
    )
