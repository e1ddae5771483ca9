from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import fusemix
from fusemix.adapters.linear import LinearAdapter
from fusemix.embedder import Embedder
from fusemix.errors import FusemixError
from fusemix.extract.datasets import load_dataset
from fusemix.extract.settings import EncoderChoice
from fusemix.joint_space import JointSpace
from fusemix.latents.provenance import concatenated_spec
from fusemix.search import run_latents
from tests.conftest import FusedEmoji
from tests.extract.colours import Colours, colour

EMBEDDED = ("image", "text")


@pytest.fixture
def embedder() -> Embedder:
    torch.manual_seed(0)
    encoders = {modality: Colours(modality) for modality in EMBEDDED}
    specs = {modality: encoder.spec for modality, encoder in encoders.items()}
    return Embedder(JointSpace({m: LinearAdapter(3, 4) for m in EMBEDDED}, specs=specs), encoders)


def picture(folder: Path, row: int) -> Path:
    path = folder / f"{row}.png"
    Image.new("RGB", (9, 9), colour(row)).save(path)
    return path


def test_a_picture_is_the_same_as_path_string_and_bytes(embedder: Embedder, tmp_path: Path) -> None:
    path = picture(tmp_path, 7)
    embeddings = embedder.encode_image([path, str(path), path.read_bytes()])
    assert embeddings.shape == (3, 4)
    assert torch.equal(embeddings[0], embeddings[1])
    assert torch.equal(embeddings[0], embeddings[2])


def test_embeddings_are_those_of_the_latents_in_the_given_order(embedder: Embedder, tmp_path: Path) -> None:
    rows = [30, 4, 99, 1, 77, 12]
    latents = torch.tensor([colour(row) for row in rows]) / 255
    by_path = embedder.encode("image", [picture(tmp_path, row) for row in rows])
    torch.testing.assert_close(by_path, embedder.space.encode("image", latents))
    torch.testing.assert_close(by_path.norm(dim=1), torch.ones(6))
    by_text = embedder.encode_text([" ".join(map(str, colour(row))) for row in rows])
    torch.testing.assert_close(by_text, embedder.space.encode("text", latents))


def test_nothing_gives_no_embeddings(embedder: Embedder) -> None:
    assert embedder.encode_text([]).shape == (0, 4)


def test_an_encoder_is_made_when_its_modality_is_first_used(embedder: Embedder) -> None:
    lazy = Embedder(embedder.space, {"image": "no-such-encoder", "text": Colours("text")})
    lazy.encode_text(["1 2 3"])
    with pytest.raises(FusemixError, match="unknown encoder 'no-such-encoder'"):
        lazy.encode_image([b""])


def test_what_cannot_be_read_is_named(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(FusemixError, match=r"image '.*/none\.png' cannot be read: FileNotFoundError"):
        embedder.encode_image([tmp_path / "none.png"])
    with pytest.raises(FusemixError, match="image '4 bytes' cannot be read: ValueError: not a picture"):
        embedder.encode_image([b"none"])


def test_a_modality_without_adapter_or_encoder_is_refused(embedder: Embedder) -> None:
    with pytest.raises(FusemixError, match="the joint space has no 'audio'"):
        embedder.encode_audio([b""])
    with pytest.raises(FusemixError, match="no encoder was given for 'text'"):
        Embedder(embedder.space, {"image": Colours()}).encode_text(["1 2 3"])


def test_an_encoder_that_the_adapter_was_not_trained_for_is_refused(embedder: Embedder) -> None:
    other = Colours("text")
    other.spec = replace(other.spec, weights="new")
    with pytest.raises(FusemixError, match=r"text adapter was trained for another encoder .*: 'none' / 'new'"):
        Embedder(embedder.space, {"text": other}).encode_text(["1 2 3"])


class Brightness(Colours):
    """Things of one colour -> the sum of red, green and blue, in batches of another size."""

    batch_cost = 3

    def __init__(self, modality: str = "text") -> None:
        super().__init__(modality, "brightness")
        self.spec = replace(self.spec, dim=1)

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        return super().encode(batch).sum(dim=1, keepdim=True)


def concatenating(encoders: list[Colours], dim: int = 4) -> Embedder:
    torch.manual_seed(0)
    spec = concatenated_spec([encoder.spec for encoder in encoders])
    return Embedder(JointSpace({"text": LinearAdapter(dim, 4)}, specs={"text": spec}), {"text": encoders})


def test_latents_of_several_encoders_are_concatenated_in_order() -> None:
    embedder = concatenating([Brightness(), Colours("text")])
    rows = [30, 4, 99, 1, 77, 12, 5]
    colours = torch.tensor([colour(row) for row in rows]) / 255
    expected = embedder.space.encode("text", torch.cat([colours.sum(dim=1, keepdim=True), colours], dim=1))
    given = embedder.encode_text([" ".join(map(str, colour(row))) for row in rows])
    torch.testing.assert_close(given, expected)
    assert [encoder.spec.name for encoder in embedder.encoders("text")] == ["brightness", "colours"]


def test_the_encoders_of_a_concatenation_are_those_it_was_trained_for() -> None:
    space = concatenating([Brightness(), Colours("text")]).space
    with pytest.raises(FusemixError, match=r"text adapter .* name: 'brightness\+colours' / 'colours\+brightness'"):
        Embedder(space, {"text": [Colours("text"), Brightness()]}).encode_text(["1 2 3"])


def test_an_encoder_may_run_in_another_precision(embedder: Embedder) -> None:
    halved = Colours("text")
    halved.spec = replace(halved.spec, dtype="float16")
    assert Embedder(embedder.space, {"text": halved}).encode_text(["1 2 3"]).shape == (1, 4)


def test_encoders_are_loaded_once_by_name_and_settings(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def create(choice: EncoderChoice, device: torch.device) -> Colours:
        made.append(choice)
        return Colours("text" if choice.name == "written" else "image")

    monkeypatch.setattr("fusemix.embedder.create_encoder", create)
    lazy = Embedder(embedder.space, {"image": [{"name": "seen", "size": 4}], "text": EncoderChoice("written")})
    assert made == []
    lazy.encode_text(["1 2 3"])
    lazy.encode_text(["1 2 3"])
    lazy.encoders("image")
    assert made == [EncoderChoice("written"), EncoderChoice("seen", {"size": 4})]


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(FusemixError, match=rf"no run in {tmp_path}; train one with: fusemix fuse RECIPE"):
        fusemix.load(tmp_path)


def test_a_run_without_its_weights_is_told(fused_emoji: FusedEmoji, tmp_path: Path) -> None:
    shutil.copy(fused_emoji.run / "recipe.yaml", tmp_path)
    with pytest.raises(FusemixError, match="no joint space in"):
        fusemix.load(tmp_path)


def test_a_trained_run_embeds_raw_pictures_and_texts(fused_emoji: FusedEmoji) -> None:
    run = fusemix.load(fused_emoji.run)
    dataset = load_dataset("emoji")
    latents = run_latents(fused_emoji.root, "emoji", run.recipe.encoder_choices)
    cat = list(dataset["image"].items).index("1F63A")
    path = dataset.source("image", cat)
    assert isinstance(path, Path)
    stored = run.space.encode("image", latents["image"].values[cat : cat + 1])
    torch.testing.assert_close(run.encode_image([path]), stored, atol=2e-3, rtol=0)

    file = io.BytesIO()
    Image.new("RGB", (50, 80), "yellow").save(file, "PNG")
    assert run.encode_image([file.getvalue()]).shape == (1, run.space.dim)

    texts = run.encode_text(["grinning cat", "flag: Norway"])
    assert (stored @ texts.T).argmax() == 0
