from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fusemix.edge import Edge
from fusemix.errors import FusemixError
from fusemix.recipe import load_recipe
from fusemix.training.settings import FuseSettings

NAMES = ("image", "text", "audio")
RECIPE = """
name: mine
dataset: emoji
encoders: {image: efficientnet-lite0, text: minilm-l6-v2, audio: whisper-tiny-en}
fuse:
  edges:
  - {a: image, b: text, weight: 2, temperature: 0.05}
  - {a: text, b: audio, temperature: own, loss: sigmoid}
"""
EDGES = (Edge("image", "text", 2.0, 0.05), Edge("text", "audio", 1.0, "own", "sigmoid"))


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [
        ("steps", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("mixup_alpha", 0.0, "above 0; to turn mixup off"),
        ("joint_dim", 0, "at least 1"),
        ("learning_rate", 0.0, "above 0"),
        ("final_learning_rate", -1e-6, "at least 0"),
        ("warmup_steps", -1, "at least 0"),
        ("weight_decay", -0.1, "at least 0"),
        ("temperature", 0.0005, r"in \[0\.001, 0\.5\]"),
        ("temperature", float("nan"), r"in \[0\.001, 0\.5\]"),
        ("validate_every", 0, "at least 1"),
        ("patience", 0, "at least 1"),
        ("captions", "two", "one or all"),
        ("bias", float("inf"), "a finite number"),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(name: str, value: float | str, bounds: str) -> None:
    with pytest.raises(FusemixError, match=rf"fuse\.{name} is {value}: it must be {bounds}"):
        FuseSettings(**{name: value})  # type: ignore[arg-type]


def names_of(edges: tuple[Edge, ...]) -> list[str]:
    return [edge.name for edge in edges]


def test_without_edges_every_pair_is_one_and_all_share_a_temperature() -> None:
    edges = FuseSettings().edges_between(NAMES)
    assert edges == (Edge("image", "text"), Edge("image", "audio"), Edge("text", "audio"))


def test_an_anchor_makes_a_star() -> None:
    assert FuseSettings(anchor="text").edges_between(NAMES) == (Edge("text", "image"), Edge("text", "audio"))


def test_an_edges_own_temperature_is_named_after_it() -> None:
    assert FuseSettings(edges=EDGES).edges_between(NAMES) == (
        Edge("image", "text", 2.0, 0.05),
        Edge("text", "audio", 1.0, "text-audio", "sigmoid"),
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"edges": (Edge("image", "txt"),)}, "edge image-txt: no latents of 'txt': did you mean 'text'?"),
        ({"edges": (Edge("video", "text"),)}, "no latents of 'video': choose one of audio, image, text"),
        ({"anchor": "images"}, "fuse.anchor is 'images', which has no latents: did you mean 'image'?"),
    ],
)
def test_an_edge_or_anchor_that_names_no_modality_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FusemixError) as told:
        FuseSettings(**settings).edges_between(NAMES)
    assert message in str(told.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"edges": (Edge("image", "text"), Edge("text", "image"))}, "edges image-text and text-image join the same"),
        ({"edges": (Edge("image", "text"),), "anchor": "image"}, "fuse.anchor is image: it must be left out where"),
        (
            {"edges": (Edge("image", "text", temperature="shraed"),)},
            "edge image-text: its temperature is 'shraed': it must be shared, own, or a number",
        ),
    ],
)
def test_edges_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FusemixError) as told:
        FuseSettings(**settings)
    assert message in str(told.value)


def test_a_recipe_holds_edges_and_saves_them(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert recipe.fuse.edges == EDGES
    recipe.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe
    options = [
        "--fuse.edges",
        "[{a: image, b: audio}]",
        "--fuse.captions",
        "all",
        "--fuse.mask_equal_content",
        "false",
    ]
    changed = load_recipe(tmp_path / "mine.yaml", options).fuse
    assert (changed.edges, changed.captions, changed.mask_equal_content) == ((Edge("image", "audio"),), "all", False)
    star = load_recipe(tmp_path / "mine.yaml", ["--fuse.edges", "[]", "--fuse.anchor", "image"]).fuse
    assert names_of(star.edges_between(NAMES)) == ["image-text", "image-audio"]


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("weight: 2", "weight: 0", "edge image-text: its weight is 0.0: it must be above 0"),
        ("weight: 2", "weight: much", 'key "weight": Expected a'),
        ("weight: 2", "wight: 2", "unknown key 'fuse.edges[1].wight': did you mean 'weight'?"),
        ("b: text", "b: image", "edge image-image: an edge aligns two modalities"),
        ("loss: sigmoid", "loss: siglip", "Got value: siglip"),
    ],
)
def test_a_wrong_edge_in_a_recipe_is_one_line(tmp_path: Path, right: str, wrong: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE.replace(right, wrong, 1))
    with pytest.raises(FusemixError) as told:
        load_recipe(tmp_path / "mine.yaml")
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_a_recipe_with_edges_is_read_without_torch(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    script = (
        "import sys; from pathlib import Path; from fusemix.recipe import load_recipe\n"
        f"load_recipe(Path({str(tmp_path / 'mine.yaml')!r})).fuse.edges_between(['image', 'text', 'audio'])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
