from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from fusemix.adapters.settings import AdapterSettings
from fusemix.edge import Edge
from fusemix.errors import FusemixError
from fusemix.extract.settings import DatasetChoice, EncoderChoice
from fusemix.recipe import Recipe, load_recipe, recipe_path
from fusemix.training.settings import FuseSettings
from tests.fusemix.recipes import FREE, MINIMAL, NAMES, SEVERAL, written


def test_a_saved_recipe_spells_every_default_out(tmp_path: Path) -> None:
    load_recipe(written(tmp_path, MINIMAL)).save(tmp_path / "saved.yaml")
    saved = yaml.safe_load((tmp_path / "saved.yaml").read_text())
    assert saved["fuse"]["steps"] == FuseSettings().steps
    assert saved["fuse"]["micro_batch"] is None
    assert saved["fuse"]["adapter"] == asdict(AdapterSettings())


def test_a_minimal_recipe_has_the_defaults(tmp_path: Path) -> None:
    encoders = {"image": "efficientnet-lite0", "text": "minilm-l6-v2"}
    assert load_recipe(written(tmp_path, MINIMAL)) == Recipe("mine", "emoji", encoders)


def test_dataset_and_encoders_may_have_settings_and_be_several(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, FREE))
    assert recipe.dataset_choices == [DatasetChoice("coco", "/data/coco", None, {"year": 2014})]
    assert recipe.encoder_choices == {
        "image": [EncoderChoice("dinov2-base")],
        "text": [EncoderChoice("bge-large", {"pooling": "cls"})],
        "audio": [EncoderChoice("htsat"), EncoderChoice("whisper-base", {"layer": -2})],
    }
    recipe.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


def test_the_name_of_a_dataset_is_kept_for_those_who_only_search(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, MINIMAL), ["--dataset", "data/pairs.csv"])
    named = recipe.named(["pairs"])
    assert named.dataset_names == ["pairs"]
    assert named.dataset_choices == [replace(recipe.dataset_choices[0], name="pairs")]
    named.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == named
    packaged = load_recipe(written(tmp_path, MINIMAL))
    assert packaged.named(["emoji"]) == packaged


def test_several_datasets_are_read_named_and_saved(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, SEVERAL))
    assert recipe.dataset_choices == [
        DatasetChoice("emoji"),
        DatasetChoice("coco", "/data/coco"),
        DatasetChoice("manifest", "pairs.csv"),
        DatasetChoice("folder", "/a", "mine", {"split": "test"}),
    ]
    names = ["emoji", "coco", "pairs", "mine"]
    named = recipe.named(names)
    assert named.dataset_names == names
    assert [choice.reader for choice in named.dataset_choices] == ["emoji", "coco", "manifest", "folder"]
    # A packaged dataset takes no name, so none is written where the reader's own tells it.
    assert named.dataset_choices[0] == DatasetChoice("emoji")
    named.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == named
    assert load_recipe(written(tmp_path, MINIMAL), ["--dataset", "[emoji, pairs.csv]"]).dataset == (
        "emoji",
        "pairs.csv",
    )


def test_two_datasets_that_turn_out_to_have_one_name_are_refused(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, MINIMAL), ["--dataset", "[a/pairs.csv, b/pairs.csv]"])
    with pytest.raises(FusemixError, match="dataset: two are called 'pairs': give each a name of its own, as"):
        recipe.named(["pairs", "pairs"])


def test_weights_of_a_dataset_that_is_none_of_the_recipe_are_refused(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, SEVERAL), ["--fuse.dataset_weights.cocoa", "2"])
    with pytest.raises(FusemixError, match=r"fuse.dataset_weights.cocoa: no such dataset: did you mean 'coco'\?"):
        recipe.named(["emoji", "coco", "pairs", "mine"])


def test_keys_of_free_names_are_read_and_saved(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, NAMES))
    assert recipe.fuse.adapters == {
        "text": AdapterSettings(kind="gated", depth=2),
        "image": AdapterSettings("identity"),
    }
    assert recipe.fuse.dataset_weights == {"coco": 2.0, "cc3m.v1": 0.5}
    assert recipe.fuse.edges == (
        Edge("image", "text", temperature="own"),
        Edge("audio", "text", 0.5, 0.05, "sigmoid"),
    )
    recipe.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{MINIMAL}fuse: {{adapter: {{dept: 3}}}}",
            "unknown key 'fuse.adapter.dept': did you mean 'depth'?",
        ),
        (
            f"{MINIMAL}fuse: {{adapters: {{text: {{kid: linear}}}}}}",
            "unknown key 'fuse.adapters.text.kid': did you mean 'kind'?",
        ),
        (f"{MINIMAL}fuse: {{adapters: {{text: 3}}}}", "'fuse.adapters.text' must hold keys of its own, not 3"),
        (
            f"{MINIMAL}fuse: {{adapters: {{text: {{depth: a}}}}}}",
            "key \"depth\": Expected a <class 'int'>. Got value: a",
        ),
        (f"{MINIMAL}fuse: {{dataset_weights: [2]}}", "'fuse.dataset_weights' must hold keys of its own, not [2]"),
        (f"{MINIMAL}fuse: {{dataset_weights: {{emoji: a}}}}", "Expected a <class 'float'>. Got value: a"),
        (
            f"{MINIMAL}fuse: {{edges: [{{a: image, b: text, temp: own}}]}}",
            "unknown key 'fuse.edges[1].temp': did you mean 'temperature'?",
        ),
        (f"{MINIMAL}steps: 3", "unknown key 'steps': did you mean 'fuse.steps'?"),
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
        ("name: mine\ndataset: emoji\nencoders: [a, b]", "encoders: name one for each modality, as {image:"),
        (
            MINIMAL.replace("dataset: emoji", "dataset: [emoji, [emoji]]"),
            "mine.yaml: a dataset is a name, a manifest file, or",
        ),
        (MINIMAL.replace("text: minilm-l6-v2", "text: 3"), "mine.yaml: encoders.text: an encoder is a name, or"),
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
        (
            f"{MINIMAL}fuse: {{refit: true}}\nbenchmark: {{split: val}}",
            "benchmark.split is val: with fuse.refit the adapters learn from it",
        ),
        ("name: mine\ndataset: emoji\nencoders: {}", "encoders: a recipe names at least one"),
        (f"{FREE}  video: []", "encoders.video: an empty list; name each encoder"),
        (f"{FREE}  video: [clip, {{name: clip}}]", "encoders.video: 'clip' stands twice"),
        (f"{FREE}  video: {{pooling: cls}}", "encoders.video: an encoder is a name, or a mapping with the key name"),
        (f"{FREE}  video: [{{name: 3}}]", "encoders.video: an encoder is a name"),
        (
            f"{MINIMAL}fuse: {{edges: [{{a: image, b: txt}}]}}",
            "edge image-txt: no latents of 'txt': did you mean 'text'?",
        ),
        (
            f"{MINIMAL}fuse: {{anchor: images}}",
            "fuse.anchor is 'images', which has no latents: did you mean 'image'?",
        ),
        (
            f"{MINIMAL}fuse: {{adapters: {{txt: {{depth: 1}}}}}}",
            "fuse.adapters.txt: no encoder of 'txt': did you mean 'text'?",
        ),
        (
            f"{MINIMAL}fuse: {{dataset_weights: {{a: -1}}}}",
            "fuse.dataset_weights is {'a': -1.0}: it must be numbers of at least 0",
        ),
        (MINIMAL.replace("dataset: emoji", "dataset: []"), "dataset: an empty list; give each dataset once"),
        (
            MINIMAL.replace("dataset: emoji", "dataset: [emoji, emoji]"),
            "dataset: 'emoji' stands twice; give each dataset once",
        ),
        (
            SEVERAL.replace("path: /data/coco", "path: /data/coco, name: mine"),
            "dataset: two are called 'mine': give each a name of its own",
        ),
        (
            FREE.replace("reader: coco, ", ""),
            "a dataset is a name, a manifest file, or a mapping with the keys reader",
        ),
    ],
)
def test_a_value_out_of_bounds_is_told_by_its_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FusemixError, match=re.escape(message)):
        load_recipe(written(tmp_path, text))


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
