"""Zero-shot classification: the class is the one whose name, put into words, lies closest.

As CLIP does (Radford et al., ICML 2021, section 3.1.4): each prompt of a class is embedded and scaled to length 1,
the mean over the prompts is scaled to length 1 again, and a row is given the class with the largest cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix.errors import FusemixError
from fusemix.retrieval.ranks import ranks

from .class_prompts import ClassPrompts
from .classification import ClassificationResult, summarise
from .labelled import LabelledRows

PROMPTS_AT_ONCE = 1024


def class_embeddings(prompts: ClassPrompts, embed_text: Callable[[Sequence[str]], Tensor]) -> Tensor:
    """Return the (C, d) float32 L2-normalised embeddings of the classes.

    Args:
        prompts: names and templates.
        embed_text: texts -> (n, d) embeddings, such as `Embedder.encode_text`.
    """
    # Classes of one name get one vector, so that they tie to the last bit.
    names = list(dict.fromkeys(prompts.names))
    at_once = max(1, PROMPTS_AT_ONCE // len(prompts.templates))
    parts = []
    for start in range(0, len(names), at_once):
        some = names[start : start + at_once]
        embedded = embed_text([prompt for name in some for prompt in prompts.prompts(name)])
        unit = normalize(embedded.float(), dim=-1).view(len(some), len(prompts.templates), -1)
        parts.append(normalize(unit.mean(dim=1), dim=-1))
    number_of = {name: number for number, name in enumerate(names)}
    return torch.cat(parts)[[number_of[name] for name in prompts.names]]


def zero_shot(
    prompts: ClassPrompts,
    embed_text: Callable[[Sequence[str]], Tensor],
    rows: LabelledRows,
    *,
    k: Sequence[int] = (1, 5),
    draws: int = 1000,
    seed: int = 0,
) -> ClassificationResult:
    """Classify embeddings by the names of the classes.

    Rows of several splits (folds) give each fold's figures too.

    Args:
        prompts: names and templates.
        embed_text: texts -> (n, d) embeddings in the joint space, such as `Embedder.encode_text`.
        rows: embeddings with their classes, those of `prompts`.
        k: the k of acc@k.
        draws: bootstrap draws over items.
        seed: decides the draws.

    Raises:
        FusemixError: where the rows are latents, their classes are others than those of the prompts, or the texts
            are embedded in a space of another dimension.
    """
    if rows.kind != "embeddings":
        raise FusemixError(f"zero-shot classification needs embeddings, not {rows.kind}: give the joint space")
    if rows.names != prompts.names:
        raise FusemixError(
            f"the rows are labelled with {len(rows.names)} classes that are not the {len(prompts.names)} of the"
            " prompts: label them with the names of the prompts"
        )
    classes = class_embeddings(prompts, embed_text)
    if classes.shape[1] != rows.features.shape[1]:
        raise FusemixError(
            f"the texts are embedded in {classes.shape[1]} dimensions and the rows in {rows.features.shape[1]}: use"
            " the text encoder of the same run"
        )
    positives = torch.from_numpy(np.stack([np.arange(len(rows)), rows.labels], axis=1))
    of_rows, _ = ranks(normalize(rows.features, dim=-1), classes, positives)
    settings = {
        "prompts": prompts.title,
        "templates": len(prompts.templates),
        "source": prompts.source,
    }
    return summarise("zero-shot", rows, of_rows, settings=settings, k=k, draws=draws, seed=seed)
