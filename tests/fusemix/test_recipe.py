from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fusemix.errors import FusemixError
from fusemix.extract import encoder_names
from fusemix.recipe import Recipe, load_recipe, packaged_recipes, recipe_path
from fusemix.training.settings import FuseSettings

MINIMAL = """
name: mine
dataset: emoji
encoders: {image: efficientnet-lite0, text: minilm-l6-v2}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_packaged_recipe_parses(name: str) -> None:
    recipe = load_recipe(recipe_path(name))
    assert recipe.name == name
    assert set(recipe.encoders.values()) <= set(encoder_names())


def test_the_emoji_recipe_is_packaged() -> None:
    assert "emoji" in packaged_recipes()


@pytest.mark.parametrize("name", packaged_recipes())
def test_a_saved_recipe_is_read_back_the_same(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(recipe_path(name), ["--benchmark.k", "[2, 3]", "--fuse.adapter.dropout", "0.25"])
    recipe.save(tmp_path / "run" / "recipe.yaml")
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe


def test_a_saved_recipe_spells_every_default_out(tmp_path: Path) -> None:
    load_recipe(written(tmp_path, MINIMAL)).save(tmp_path / "saved.yaml")
    saved = yaml.safe_load((tmp_path / "saved.yaml").read_text())
    assert saved["fuse"]["steps"] == FuseSettings().steps
    assert set(saved["fuse"]["adapter"]) == {"depth", "expansion", "dropout"}


def test_a_minimal_recipe_has_the_defaults(tmp_path: Path) -> None:
    encoders = {"image": "efficientnet-lite0", "text": "minilm-l6-v2"}
    assert load_recipe(written(tmp_path, MINIMAL)) == Recipe("mine", "emoji", encoders)


def test_options_come_after_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, f"{MINIMAL}fuse: {{steps: 7, adapter: {{depth: 3}}}}")
    options = ["--fuse.steps", "9", "--fuse.adapter.expansion=2", "--encoders.text", "other", "--name", "yours"]
    recipe = load_recipe(path, options)
    assert (recipe.fuse.steps, recipe.fuse.adapter.depth, recipe.fuse.adapter.expansion) == (9, 3, 2)
    assert recipe.encoders == {"image": "efficientnet-lite0", "text": "other"}
    assert recipe.name == "yours"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{MINIMAL}fuse: {{adapter: {{dept: 3}}}}",
            "unknown key 'fuse.adapter.dept': did you mean 'fuse.adapter.depth'",
        ),
        (f"{MINIMAL}benchmarks: {{}}", "unknown key 'benchmarks': did you mean 'benchmark'"),
        (f"{MINIMAL}name: yours", "the key 'name' stands twice"),
        (f"{MINIMAL}fuse: {{steps: 1, steps: 2}}", "the key 'steps' stands twice"),
        (
            f"{MINIMAL}fuse: {{batch_size: many}}",
            "key \"fuse.batch_size\": Expected a <class 'int'>. Got value: many",
        ),
        (f"{MINIMAL}fuse: 3", "'fuse' must hold keys of its own, not 3"),
        (f"{MINIMAL}fuse: {{adapter: }}", "'fuse.adapter' must hold keys of its own, not None"),
        (MINIMAL.replace("dataset: emoji\n", ""), "dataset"),
        (MINIMAL.replace("name: mine", "name: 3"), "key \"name\": Expected a <class 'str'>. Got value: 3"),
        ("name: mine\ndataset: emoji\nencoders: [a, b]", "key \"encoders\": Expected a <class 'dict'>"),
        ("a: [b", "is not a readable recipe"),
        ("\x00", "is not a readable recipe"),
        ("", "is not a recipe: it must hold keys"),
        ("emoji", "is not a recipe: it must hold keys"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(FusemixError) as told:
        load_recipe(path)
    assert str(path) in str(told.value)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{MINIMAL}fuse: {{steps: 0}}", "fuse.steps is 0: it must be at least 1"),
        (f"{MINIMAL}extract: {{dtype: float64}}", "extract.dtype is 'float64'"),
        (f"{MINIMAL}benchmark: {{split: train}}", "benchmark.split is train"),
        ("name: mine\ndataset: emoji\nencoders: {image: efficientnet-lite0}", "two modalities or more"),
    ],
)
def test_a_value_out_of_bounds_is_told_by_its_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FusemixError, match=re.escape(message)):
        load_recipe(written(tmp_path, text))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--fuse.step", "3"], "unknown option --fuse.step: did you mean '--fuse.steps'"),
        (["--recipe", "other.yaml"], "unknown option --recipe: "),
        (["--fuse.steps", "x"], 'key "fuse.steps": Expected a'),
        (["--fuse", "3"], 'key "fuse"'),
        (["--fuse.steps"], "--fuse.steps: expected one argument"),
        (["more"], "unrecognized arguments: more"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(tmp_path: Path, option: list[str], message: str) -> None:
    with pytest.raises(FusemixError) as told:
        load_recipe(written(tmp_path, MINIMAL), option)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("emojy", "unknown recipe 'emojy': did you mean 'emoji'?; a file of your own needs its .yaml"),
        ("there/is/none.yaml", "no recipe file at there/is/none.yaml"),
    ],
)
def test_an_unknown_recipe_is_told(name: str, message: str) -> None:
    with pytest.raises(FusemixError, match=re.escape(message)):
        recipe_path(name)
