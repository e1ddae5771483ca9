from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fusemix.errors import FusemixError
from fusemix.latents.paired import PairedLatents
from fusemix.training.statistics import standardisation


def paired(latents: npt.NDArray[Any]) -> PairedLatents:
    """Return every third row as validation, the others to train on."""
    items = [f"{row:05d}" for row in range(len(latents))]
    splits = {item: "val" if row % 3 == 0 else "train" for row, item in enumerate(items)}
    return PairedLatents.from_arrays({"image": latents}, {"image": items}, splits)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_mean_and_deviation_are_numpys_in_float64_over_the_rows_of_the_split(
    dtype: type[np.floating[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusemix.training.statistics.ELEMENTS_AT_ONCE", 300)
    rng = np.random.default_rng(0)
    # A mean a thousand times the deviation is where E[x^2] - E[x]^2 in float32 would lose all digits.
    latents = (rng.normal(size=(777, 3)) * [1, 0.5, 1] + [0, -100, 1000]).astype(dtype)
    mean, std = standardisation([paired(latents).split("train")["image"]])
    used = latents[np.arange(777) % 3 > 0].astype(np.float64)
    assert mean.dtype == std.dtype == torch.float32
    np.testing.assert_allclose(mean.numpy(), used.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), used.std(0), rtol=1e-6)


def test_datasets_are_pooled_by_their_rows() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(size, 3)) + shift for size, shift in ((50, 0), (7, 1000), (300, -3))]
    mean, std = standardisation([paired(part)["image"] for part in parts])
    np.testing.assert_allclose(mean.numpy(), np.concatenate(parts).mean(0), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), np.concatenate(parts).std(0), rtol=1e-6)


def test_a_constant_dimension_has_deviation_zero() -> None:
    latents = np.tile(np.array([[0.1, 3e4]], np.float32), (3000, 1))
    mean, std = standardisation([paired(latents)["image"]])
    assert mean.tolist() == latents[0].tolist()
    assert (std <= 1e-7 * mean).all()


def test_a_modality_without_rows_is_refused() -> None:
    latents = PairedLatents.from_arrays(
        {"image": np.ones((1, 2)), "text": np.ones((1, 2))},
        {"image": ["a"], "text": ["b"]},
        {"a": "train", "b": "val"},
    )
    with pytest.raises(FusemixError, match="no row"):
        standardisation([latents.split("train")["text"]])
