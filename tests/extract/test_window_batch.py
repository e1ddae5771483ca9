from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from fusemix.extract.sound_windows import PreparedSound, SoundWindows
from fusemix.extract.window_batch import WindowEncoder, mean_of_valid, statistics_of_valid
from tests.extract.sound_files import Array


class AsTheyAre:
    """Features that are the samples, padded with zeros to four."""

    def __call__(self, samples: Array) -> Array:
        return samples

    def padded(self, features: Array) -> Array:
        return np.pad(features, (0, 4 - len(features)))


class FirstTwo(WindowEncoder):
    """Encodes a window as its first two numbers, and remembers how many windows it was given at once."""

    def __init__(self, windows_at_once: int) -> None:
        super().__init__(SoundWindows(16000, 4, 1, AsTheyAre()), windows_at_once)
        self.given: list[int] = []

    def encode_windows(self, windows: Tensor, valid: Tensor) -> Tensor:
        assert len(windows) == len(valid)
        self.given.append(len(windows))
        return windows[:, :2].half()


def sound(*windows: tuple[float, ...]) -> PreparedSound:
    return PreparedSound([np.array(window, np.float32) for window in windows], [len(window) for window in windows])


LONG = sound((1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13, 14))
SOUNDS = [sound((-1, -2, -3, -4)), LONG, sound((100, 200))]
# (1, 2), (5, 6) and (9, 10) weigh 4 each, (13, 14) weighs 2.
LATENTS = [[-1, -2], [(4 * (1 + 5 + 9) + 2 * 13) / 14, (4 * (2 + 6 + 10) + 2 * 14) / 14], [100, 200]]


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 6, 100])
def test_a_sound_s_latent_is_the_mean_of_its_windows_weighed_by_what_is_sound(at_once: int) -> None:
    encoder = FirstTwo(at_once)
    latents = encoder.encode(encoder.collate(SOUNDS))
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, torch.tensor(LATENTS))
    assert max(encoder.given) <= at_once
    assert sum(encoder.given) == 6


def test_a_sound_costs_its_windows() -> None:
    encoder = FirstTwo(3)
    assert [encoder.cost(one) for one in SOUNDS] == [1, 4, 1]
    assert encoder.batch_cost == 3


def test_a_window_that_is_not_finite_spoils_its_own_sound_only() -> None:
    encoder = FirstTwo(2)
    latents = encoder.encode(encoder.collate([LONG, sound((1, 2, 3, 4), (np.nan, 1)), LONG]))
    assert torch.isnan(latents[1, 0])
    torch.testing.assert_close(latents[[0, 2]], torch.tensor([LATENTS[1]] * 2))


def test_the_mean_is_over_the_first_valid_frames() -> None:
    frames = torch.arange(24.0).reshape(2, 4, 3)
    means = mean_of_valid(frames.half(), torch.tensor([1, 3]))
    assert means.dtype == torch.float32
    torch.testing.assert_close(means, torch.tensor([[0.0, 1, 2], [15, 16, 17]]))


def test_statistics_are_mean_deviation_and_the_mean_of_each_third() -> None:
    valid = [1, 2, 3, 4, 5, 11]
    frames = torch.randn(len(valid), 11, 3, generator=torch.Generator().manual_seed(0))
    for row, count in enumerate(valid):
        frames[row, count:] = 1e10
    found = statistics_of_valid(frames, torch.tensor(valid))
    assert found.shape == (6, 15)
    for row, count in enumerate(valid):
        sound = frames[row, :count].double().numpy()
        edges = [third * count // 3 for third in range(4)]
        thirds = [sound[start : max(stop, start + 1)].mean(axis=0) for start, stop in pairwise(edges)]
        right = np.concatenate([sound.mean(axis=0), sound.std(axis=0), *thirds])
        np.testing.assert_allclose(found[row].numpy(), right, atol=1e-5)
