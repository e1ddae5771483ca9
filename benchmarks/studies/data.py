"""What studies train on: latents that were extracted before, or a synthetic world, and a share of their items."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from fusemix.benchmarks.synthetic import SyntheticSettings, synthetic_latents
from fusemix.extract.encoders.efficientnet_lite import VARIANTS
from fusemix.extract.settings import EncoderChoice
from fusemix.latents.paired import PairedLatents
from fusemix.randomness import derive_seed
from fusemix.recipe import load_recipe, recipe_path
from fusemix.search import run_latents

from .design import Data


def load_data(data: Data, root: Path) -> PairedLatents:
    """Return the latents of a study.

    Args:
        data: which.
        root: folder of the `latents/` that recipes left.

    Raises:
        FusemixError: where they were not extracted yet.
    """
    latents = load_source(data.source, root, data.sides)
    return latents if data.share == 1 else with_share(latents, data.share)


@lru_cache(maxsize=8)
def load_source(source: str | SyntheticSettings, root: Path, sides: tuple[int, ...]) -> PairedLatents:
    """Return all latents of a world, or of a recipe but for its pictures, which are seen at the given sides."""
    if not isinstance(source, str):
        return synthetic_latents(source)
    recipe = load_recipe(recipe_path(source))
    [dataset] = recipe.dataset_names
    return run_latents(root, dataset, {**recipe.encoder_choices, "image": [_at_side(side) for side in sides]})


def _at_side(side: int) -> EncoderChoice:
    # The side that the network was trained with is its default, and its latents file is named accordingly.
    return EncoderChoice("efficientnet-lite0", {} if side == VARIANTS["efficientnet-lite0"].side else {"side": side})


def with_share(latents: PairedLatents, share: float) -> PairedLatents:
    """Keep a share of the training items and all others.

    Items are taken in the order of a hash of their ids, so that a smaller share lies in a larger one.
    """
    training = np.flatnonzero(latents.splits == "train")
    ordered = sorted(training, key=lambda position: derive_seed("share", str(latents.items[position])))
    kept = np.concatenate([ordered[: round(share * len(training))], np.flatnonzero(latents.splits != "train")])
    return latents.at(torch.from_numpy(np.sort(kept.astype(np.int64))))
