from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fusemix.adapters.linear import LinearAdapter
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import EncoderSpec
from fusemix.search import Collection, closest

ITEMS = 30


@pytest.fixture
def latents() -> PairedLatents:
    rng = np.random.default_rng(0)
    owners = {
        "image": [f"item{index:02}" for index in range(ITEMS)],
        # Two captions for each even item, in a shuffled order; none for the odd ones.
        "text": [f"item{index:02}" for index in rng.permutation(np.repeat(np.arange(0, ITEMS, 2), 2))],
    }
    return PairedLatents.from_arrays(
        {"image": rng.normal(size=(ITEMS, 6)), "text": rng.normal(size=(ITEMS, 5))},
        owners,
        {f"item{index:02}": ("train", "test")[index % 2] for index in range(ITEMS)},
        sources={
            modality: [f"{modality} {row} of {item}" for row, item in enumerate(of)]
            for modality, of in owners.items()
        },
    )


@pytest.fixture
def space() -> JointSpace:
    torch.manual_seed(0)
    return JointSpace({"image": LinearAdapter(6, 4), "text": LinearAdapter(5, 4)})


@pytest.mark.parametrize("modality", ["image", "text"])
def test_hits_are_those_of_an_exhaustive_search(latents: PairedLatents, space: JointSpace, modality: str) -> None:
    collection = Collection(space, latents, modality)
    all_rows = space.encode(modality, latents[modality].values).double().numpy()
    for query in torch.nn.functional.normalize(torch.randn(10, 4), dim=1):
        scores = all_rows @ query.double().numpy()
        best = np.argsort(-scores)[:7]
        hits = collection.search(query, 7)
        assert [hit.source for hit in hits] == [latents[modality].sources[row] for row in best]
        assert [hit.score for hit in hits] == pytest.approx(scores[best].tolist(), abs=1e-5)
        for hit in hits:
            assert hit.source.endswith(f" of {hit.item}")
            assert hit.split == ("train", "test")[int(hit.item[-2:]) % 2]


def test_a_split_is_searched_alone(latents: PairedLatents, space: JointSpace) -> None:
    hits = Collection(space, latents.split("test"), "image").search(torch.ones(4), 100)
    assert sorted(hit.item for hit in hits) == [f"item{index:02}" for index in range(1, ITEMS, 2)]


def test_a_hit_is_described_by_the_first_source_of_another_modality(
    latents: PairedLatents, space: JointSpace
) -> None:
    captions = [str(source) for source in latents["text"].sources]
    for hit in Collection(space, latents, "image").search(torch.ones(4), ITEMS):
        of_item = [caption for caption in captions if caption.endswith(hit.item)]
        assert hit.described_by == (of_item[0] if of_item else "")


def test_an_item_is_described_in_words_before_anything_else(latents: PairedLatents) -> None:
    sounds = replace(latents["image"], sources=[f"sound {row}" for row in range(ITEMS)])
    three = {"audio": sounds, "image": latents["image"], "text": latents["text"]}
    torch.manual_seed(0)
    space = JointSpace({"audio": LinearAdapter(6, 4), "image": LinearAdapter(6, 4), "text": LinearAdapter(5, 4)})
    for modality, other in (("audio", "image"), ("image", "sound")):
        for hit in Collection(space, replace(latents, modalities=three), modality).search(torch.ones(4), ITEMS):
            assert hit.described_by.startswith("text " if int(hit.item[-2:]) % 2 == 0 else f"{other} ")
    for hit in Collection(space, replace(latents, modalities=three), "text").search(torch.ones(4), ITEMS):
        assert hit.described_by.startswith("sound ")


def test_several_datasets_are_searched_as_one(latents: PairedLatents, space: JointSpace) -> None:
    parts = [replace(latents.split(name), dataset=replace(latents.dataset, name=name)) for name in ("train", "test")]
    query = torch.ones(4)
    together = closest([Collection(space, part, "image") for part in parts], query, 7)
    alone = Collection(space, latents, "image").search(query, 7)
    assert [(hit.item, hit.source) for hit in together] == [(hit.item, hit.source) for hit in alone]
    assert {hit.dataset for hit in together} == {"train", "test"}
    assert all(hit.dataset == hit.split for hit in together)


def test_asking_for_more_than_there_is_gives_all(latents: PairedLatents, space: JointSpace) -> None:
    hits = Collection(space, latents, "text").search(torch.ones(4), 1000)
    assert len(hits) == ITEMS
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_asking_for_none_is_refused(latents: PairedLatents, space: JointSpace) -> None:
    with pytest.raises(FusemixError, match="asked for the best 0: ask for at least 1"):
        Collection(space, latents, "text").search(torch.ones(4), 0)


def test_latents_of_another_encoder_are_refused(latents: PairedLatents, space: JointSpace) -> None:
    spec = EncoderSpec(name="net", modality="image", dim=6, weights="new")
    images = replace(latents["image"], spec=spec)
    space.specs["image"] = replace(spec, weights="old")
    with pytest.raises(FusemixError, match=r"image adapter was trained for another encoder .* 'old' / 'new'"):
        Collection(space, replace(latents, modalities={**latents.modalities, "image": images}), "text")


def test_an_unknown_modality_is_refused(latents: PairedLatents, space: JointSpace) -> None:
    with pytest.raises(FusemixError, match="no latents of modality 'images': did you mean 'image'"):
        Collection(space, latents, "images")
