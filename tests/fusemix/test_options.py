"""Options that change a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusemix.adapters.settings import AdapterSettings
from fusemix.errors import FusemixError
from fusemix.options import setting_value
from fusemix.recipe import load_recipe
from tests.fusemix.recipes import FREE, MINIMAL, NAMES, written


def test_options_come_after_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, f"{MINIMAL}fuse: {{steps: 7, adapter: {{depth: 3}}}}")
    options = ["--fuse.steps", "9", "--fuse.adapter.expansion=2", "--encoders.text", "other", "--name", "yours"]
    recipe = load_recipe(path, options)
    assert (recipe.fuse.steps, recipe.fuse.adapter.depth, recipe.fuse.adapter.expansion) == (9, 3, 2)
    assert recipe.encoders == {"image": "efficientnet-lite0", "text": "other"}
    assert recipe.name == "yours"


def test_free_settings_are_merged_by_options(tmp_path: Path) -> None:
    options = ["--dataset.path=/mnt/x=y", "--encoders.text.pooling", "mean", "--encoders.image.layer", "-2"]
    recipe = load_recipe(
        written(tmp_path, FREE), [*options, "--encoders.text.normalize=true", "--dataset.year", "2017"]
    )
    assert recipe.dataset == {"reader": "coco", "path": "/mnt/x=y", "year": 2017}
    assert recipe.encoders["text"] == {"name": "bge-large", "pooling": "mean", "normalize": True}
    assert recipe.encoders["image"] == {"name": "dinov2-base", "layer": -2}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("cls", "cls"),
        ("-2", -2),
        ("1e-3", 0.001),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ('"3"', "3"),
        ("query: ", "query: "),
        (" a", " a"),
        ("2014-01-01", "2014-01-01"),
        ("[a, 1]", ["a", 1]),
        ("{a: 1}", {"a": 1}),
        ("[a", "[a"),
        ("'", "'"),
        ("", ""),
        ("# red", "# red"),
        ("/data/x: y", "/data/x: y"),
        ("@", "@"),
    ],
)
def test_a_setting_on_the_command_line_is_what_it_is_in_a_recipe(text: str, value: object) -> None:
    assert setting_value(text) == value
    assert type(setting_value(text)) is type(value)


@pytest.mark.parametrize(
    ("options", "dataset"),
    [
        (["--dataset", "pairs.csv"], "pairs.csv"),
        (["--dataset", '{"reader": "folder", "path": "x"}'], {"reader": "folder", "path": "x"}),
        (
            ["--dataset", "pairs.csv", "--dataset.delimiter", ";"],
            {"reader": "manifest", "path": "pairs.csv", "delimiter": ";"},
        ),
    ],
)
def test_a_dataset_is_replaced_by_an_option(tmp_path: Path, options: list[str], dataset: object) -> None:
    assert load_recipe(written(tmp_path, FREE), options).dataset == dataset


def test_encoders_are_replaced_by_options(tmp_path: Path) -> None:
    options = ["--encoders.audio", "[htsat, {name: ast}]", "--encoders.text", "{name: e5-base, prompt: 'query: '}"]
    recipe = load_recipe(written(tmp_path, FREE), [*options, "--encoders.image=timm"])
    assert recipe.encoders == {
        "image": "timm",
        "text": {"name": "e5-base", "prompt": "query: "},
        "audio": ["htsat", {"name": "ast"}],
    }


@pytest.mark.parametrize(
    ("options", "adapters"),
    [
        (["--fuse.adapters", "{image: {depth: 3}}"], {"image": AdapterSettings(depth=3)}),
        (
            ["--fuse.adapters.image.depth", "4", "--fuse.adapters", "{image: {depth: 3, dropout: 0}}"],
            {"image": AdapterSettings(depth=4, dropout=0)},
        ),
        (
            ["--fuse.adapters.image", "{depth: 3}"],
            {"text": AdapterSettings("gated", 2), "image": AdapterSettings(depth=3)},
        ),
        (
            ["--fuse.adapters.text.depth", "3"],
            {"text": AdapterSettings("gated", 3), "image": AdapterSettings("identity")},
        ),
        (
            ["--fuse.adapters.text.noise=0.5", "--fuse.adapters.text.kind=linear"],
            {"text": AdapterSettings("linear", noise=0.5), "image": AdapterSettings("identity")},
        ),
        (
            ["--fuse.adapter.dropout", "0.25", "--fuse.adapters.audio.expansion", "2"],
            {
                "text": AdapterSettings("gated", 2),
                "image": AdapterSettings("identity"),
                "audio": AdapterSettings(expansion=2, dropout=0.25),
            },
        ),
    ],
    ids=["all", "all and a setting", "one", "a setting", "a kind", "the adapter for all, with one setting"],
)
def test_adapters_are_changed_by_options(
    tmp_path: Path, options: list[str], adapters: dict[str, AdapterSettings]
) -> None:
    assert load_recipe(written(tmp_path, NAMES), options).fuse.adapters == adapters


def test_weights_are_changed_by_options(tmp_path: Path) -> None:
    options = ["--fuse.dataset_weights.cc3m.v1", "1e-3", "--fuse.dataset_weights.sbu=3"]
    weights = load_recipe(written(tmp_path, NAMES), options).fuse.dataset_weights
    assert weights == {"coco": 2.0, "cc3m.v1": 0.001, "sbu": 3.0}
    whole = load_recipe(written(tmp_path, NAMES), ["--fuse.dataset_weights", "{sbu: 3}"])
    assert whole.fuse.dataset_weights == {"sbu": 3.0}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--fuse.step", "3"], "unknown option --fuse.step: did you mean '--fuse.steps'"),
        (["--recipe", "other.yaml"], "unknown option --recipe: "),
        (["--fuse.steps", "x"], 'key "fuse.steps": Expected a'),
        (["--fuse", "3"], "option --fuse: 'fuse' must hold keys of its own, not 3"),
        (
            ["--fuse.adapters.text", "3"],
            "option --fuse.adapters.text: 'fuse.adapters.text' must hold keys of its own",
        ),
        (["--fuse.adapters", "{text: {dept: 3}}"], "unknown key 'fuse.adapters.text.dept': did you mean 'depth'?"),
        (
            ["--fuse.adapters.text.knd", "mlp"],
            "--fuse.adapters.text.knd: an adapter has no setting 'knd': did you mean",
        ),
        (["--fuse.adapters.text.depth", "many"], "key \"depth\": Expected a <class 'int'>. Got value: many"),
        (["--fuse.adapter.depth", "-1"], "fuse.adapter: adapter setting depth is -1: it must be at least 0"),
        (
            ["--fuse.adapters.text.depth", "-1"],
            "fuse.adapters.text: adapter setting depth is -1: it must be at least",
        ),
        (["--fuse.adapters.text.depth"], "option --fuse.adapters.text.depth: expected a value"),
        (["--fuse.dataset_weights.emoji", "many"], "Expected a <class 'float'>. Got value: many"),
        (["--fuse.edges", "[{a: image, b: text, wait: 2}]"], "unknown key 'fuse.edges[1].wait': "),
        (
            ["--dataset", "[emoji, pairs.csv]", "--dataset.path", "x"],
            "--dataset.path: dataset is a list of datasets; give it whole, as --dataset '[...]'",
        ),
        (["--fuse.steps"], "--fuse.steps: expected one argument"),
        (["--dataset.path"], "option --dataset.path: expected a value"),
        (
            ["--encoders.txt.pooling", "cls"],
            "--encoders.txt.pooling: the recipe has no 'encoders.txt': did you mean 'text'",
        ),
        (["--encoders.text", "[a, b]", "--encoders.text.pooling", "cls"], "encoders.text is a list of encoders"),
        (["--encoders.text", "3", "--encoders.text.name", "[x]"], "encoders.text: an encoder is a name"),
        (["more"], "unrecognized arguments: more"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(tmp_path: Path, option: list[str], message: str) -> None:
    with pytest.raises(FusemixError) as told:
        load_recipe(written(tmp_path, MINIMAL), option)
    assert message in str(told.value)
    assert "\n" not in str(told.value)
