"""Training on several datasets at once, and on splits that are not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import DatasetStamp
from fusemix.objective import Edge
from fusemix.training.validation import Validation
from tests.fusemix.synthetic import world
from tests.fusemix.training.short_runs import SETTINGS, SHORT, THREE, Interrupted, Recorder, metrics, same, train

EDGES = (Edge("image", "text"), Edge("audio", "text"))
STAR = replace(SHORT, edges=EDGES)


def dataset(name: str, *modalities: str, items: int = 120, start: int = 0) -> PairedLatents:
    """Return some items of one world with some of its modalities."""
    latents = world(300, THREE, missing=0.0)
    part = replace(latents, dataset=DatasetStamp(name)).at(torch.arange(start, start + items))
    return replace(part, modalities={modality: part[modality] for modality in modalities})


PICTURES = dataset("pictures", "image", "text", items=200)
SOUNDS = dataset("sounds", "text", "audio", items=100, start=200)


def without(latents: PairedLatents, split: str) -> PairedLatents:
    return replace(latents, splits=np.array(["test" if s == split else s for s in latents.splits], object))


def test_datasets_that_share_a_modality_bring_their_others_together(tmp_path: Path) -> None:
    space = train([PICTURES, SOUNDS], replace(SETTINGS, edges=EDGES, batch_size=48), run=tmp_path)
    assert space.modalities == ["audio", "image", "text"]
    validated = metrics(tmp_path)[-1]
    names = {
        "pictures": ("image-to-text", "text-to-image"),
        "sounds": ("audio-to-text", "text-to-audio"),
    }
    found = {name for name in validated if "-to-" in name and name.endswith("/mrr")}
    assert found == {f"{name}/{direction}/mrr" for name, directions in names.items() for direction in directions}
    assert validated["mrr"] == pytest.approx(np.mean([validated[name] for name in found]))
    # No item was ever seen to have both.
    test = world(300, THREE, missing=0.0).split("test")
    assert Validation(test, [Edge("image", "audio")])(space)["mrr"] > 0.3


def test_a_run_on_several_datasets_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    whole = train([PICTURES, SOUNDS], STAR, run=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train([PICTURES, SOUNDS], STAR, run=tmp_path / "half", on_step=Recorder(interrupt_at=5))
    assert same(train([PICTURES, SOUNDS], STAR, run=tmp_path / "half"), whole)
    assert metrics(tmp_path / "half") == metrics(tmp_path / "whole")
    with pytest.raises(FusemixError, match="dataset was 'pictures, sounds', now 'pictures'"):
        train([PICTURES], replace(STAR, edges=EDGES[:1]), run=tmp_path / "half")


def test_one_dataset_in_a_list_is_one_dataset(tmp_path: Path) -> None:
    assert same(train([world()], run=tmp_path / "listed"), train(world(), run=tmp_path / "alone"))
    assert metrics(tmp_path / "listed") == metrics(tmp_path / "alone")


def test_datasets_may_have_only_one_of_the_splits(tmp_path: Path) -> None:
    trained, validated = without(PICTURES, "val"), without(SOUNDS, "train")
    edge = (Edge("image", "text"),)
    more = replace(PICTURES, dataset=DatasetStamp("more"))
    train([trained, without(more, "train")], replace(SHORT, edges=edge), run=tmp_path)
    assert {name for name in metrics(tmp_path)[-1] if name.endswith("/mrr")} == {
        "image-to-text/mrr",
        "text-to-image/mrr",
    }
    with pytest.raises(FusemixError, match="no item of the validation split has two modalities"):
        train([trained, validated], replace(SHORT, edges=edge))


@pytest.mark.parametrize("missing", ["train", "val"])
def test_items_that_are_all_in_other_splits_are_refused(missing: str) -> None:
    there = ", ".join(sorted({"train", "val", "test"} - {missing}))
    with pytest.raises(FusemixError, match=f"no item in the split '{missing}': .* there are .pictures: {there}.$"):
        train(without(PICTURES, missing))
    with pytest.raises(FusemixError, match=rf"there are \(pictures: {there}; sounds: {there}\)"):
        train([without(PICTURES, missing), without(SOUNDS, missing)], STAR)


def test_items_that_are_all_in_one_split_are_refused() -> None:
    items = [str(index) for index in range(60)]
    latents = PairedLatents.from_arrays(
        {"image": np.ones((60, 4)), "text": np.ones((60, 4))},
        {"image": items, "text": items},
        dict.fromkeys(items, "train"),
    )
    with pytest.raises(FusemixError, match=r"no item in the split 'val': .* there are \(arrays: train\)$"):
        train(latents)


def test_no_dataset_at_all_is_refused() -> None:
    with pytest.raises(FusemixError, match=r"two modalities or more, not \[\]"):
        train([])


def test_datasets_of_one_name_or_of_different_encoders_are_refused() -> None:
    with pytest.raises(FusemixError, match="two datasets are named 'pictures'"):
        train([PICTURES, PICTURES], replace(SHORT, edges=EDGES[:1]))
    text = SOUNDS["text"]
    wider = replace(SOUNDS, modalities={**SOUNDS.modalities, "text": replace(text, values=text.values.repeat(1, 2))})
    with pytest.raises(
        FusemixError, match="text latents have dimension 16 in the dataset 'pictures' and 32 in 'sounds'"
    ):
        train([PICTURES, wider], STAR)


def test_latents_of_another_dimension_than_a_loaded_space_takes_are_refused(tmp_path: Path) -> None:
    train(world(), run=tmp_path)
    space = JointSpace.load(tmp_path / "joint_space")
    wider = world(modalities={"image": 25, "text": 16})
    with pytest.raises(
        FusemixError, match=r"image latents of shape \(\d+, 25\) do not fit an adapter for dimension 24"
    ):
        Validation(wider.split("test"), EDGES[:1])(space)
