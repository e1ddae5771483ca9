"""The recipes that come with fusemix: each parses, and trains two steps on latents as of its encoders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from fusemix.benchmarks.retrieval import evaluate_pairs
from fusemix.extract import encoder_names
from fusemix.extract.catalogue import CATALOGUE
from fusemix.extract.datasets import dataset_readers
from fusemix.extract.datasets.karpathy import COCO_CAPTIONS
from fusemix.extract.datasets.sound_captions import AUDIOCAPS_CAPTIONS, CLOTHO_ITEMS
from fusemix.latents.paired import PairedLatents
from fusemix.recipe import Recipe, load_recipe, packaged_recipes, recipe_path
from fusemix.training.fuse import fuse

OF_PAPERS = ("5m-dinov2-bge", "audiocaps-clotho", "coco-dinov2-bge")
TWO_STEPS = ["--fuse.steps", "2", "--fuse.batch_size", "4", "--fuse.validate_every", "2", "--benchmark.draws", "9"]
MARKED = re.compile(r"  # .*\b(paper|release|ours)\b")


def dims(recipe: Recipe) -> dict[str, int]:
    """Return the dimension of each modality's latents, as the catalogue knows its encoders."""
    return {
        modality: sum(CATALOGUE[choice.name].dim or 0 for choice in choices)
        for modality, choices in recipe.encoder_choices.items()
    }


def latents_of(dataset: str, dims: dict[str, int], splits: tuple[str, ...]) -> PairedLatents:
    """Return eight items of each split, the text of an item in two rows."""
    rng = np.random.default_rng(len(dataset))
    items = [f"{split}{index}" for split in splits for index in range(8)]
    rows = {modality: sorted(2 * items) if modality == "text" else items for modality in dims}
    latents = {m: rng.normal(size=(len(rows[m]), dim)).astype(np.float16) for m, dim in dims.items()}
    return PairedLatents.from_arrays(latents, rows, {item: item[:-1] for item in items}, dataset=dataset)


def hyper_parameters(name: str) -> Iterator[str]:
    """Yield the lines of a recipe that hold a value; its name is none of ours to explain."""
    for line in recipe_path(name).read_text().splitlines():
        bare = line.partition("  #")[0].strip()
        if bare and not bare.startswith(("#", "name:")) and not bare.endswith(":"):
            yield line


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_packaged_recipe_parses(name: str) -> None:
    recipe = load_recipe(recipe_path(name))
    assert recipe.name == name
    assert {choice.reader for choice in recipe.dataset_choices} <= set(dataset_readers())
    for choices in recipe.encoder_choices.values():
        assert {choice.name for choice in choices} <= set(encoder_names())


def test_the_recipes_of_papers_are_packaged() -> None:
    assert {"emoji", *OF_PAPERS} <= set(packaged_recipes())


@pytest.mark.parametrize("name", packaged_recipes())
def test_a_saved_recipe_is_read_back_the_same(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(recipe_path(name), ["--benchmark.k", "[2, 3]", "--fuse.adapter.dropout", "0.25"])
    recipe.save(tmp_path / "run" / "recipe.yaml")
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe


@pytest.mark.parametrize("name", packaged_recipes())
def test_a_packaged_recipe_trains_two_steps_on_latents_of_its_encoders(name: str) -> None:
    # Weights in proportion to millions of pairs would leave nothing of eight.
    recipe = load_recipe(recipe_path(name), [*TWO_STEPS, "--fuse.dataset_weights", "{}"])
    # Sets that are read as one split are for training alone.
    splits = [("train",) if "split" in one.settings else ("train", "val", "test") for one in recipe.dataset_choices]
    latents = [
        latents_of(dataset, dims(recipe), of) for dataset, of in zip(recipe.dataset_names, splits, strict=True)
    ]
    seen: list[int] = []
    space = fuse(latents, recipe.fuse, device="cpu", on_step=lambda step, figures: seen.append(step))
    assert seen == ([1, 2, 3, 4] if recipe.fuse.refit else [1, 2])
    assert {name: space.adapter(name).input_dim for name in space.modalities} == dims(recipe)
    assert {space.adapter(name).joint_dim for name in space.modalities} == {recipe.fuse.joint_dim}
    edges = [(edge.a, edge.b) for edge in recipe.fuse.edges_between(recipe.encoders)]
    result = evaluate_pairs(space, latents[0], edges, recipe.benchmark)
    assert len(result.directions) == 2 * len(edges)


@pytest.mark.parametrize("name", OF_PAPERS)
def test_every_hyper_parameter_says_where_it_is_from(name: str) -> None:
    lines = list(hyper_parameters(name))
    assert [line for line in lines if not MARKED.search(line)] == []
    given = yaml.safe_load(recipe_path(name).read_text())["fuse"]
    assert {"steps", "batch_size", "mixup_alpha", "joint_dim", "adapter", "temperature", "seed"} <= set(given)


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("coco-dinov2-bge", COCO_CAPTIONS["train"]),
        ("5m-dinov2-bge", 5_000_000),
        ("audiocaps-clotho", AUDIOCAPS_CAPTIONS["train"] + 5 * CLOTHO_ITEMS["train"]),
    ],
)
def test_steps_are_those_of_the_epochs_of_the_release(name: str, pairs: int) -> None:
    settings = load_recipe(recipe_path(name)).fuse
    assert settings.mixup == "halves"
    assert settings.steps == 500 * (pairs // (2 * settings.batch_size))
    # The run is never stopped early, as the release's is not.
    assert settings.validate_every * settings.patience >= settings.steps
