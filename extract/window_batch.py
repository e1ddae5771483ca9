"""What encoders of sounds have in common: they encode windows, and one latent comes from the windows of a sound.

A batch holds the windows of all its sounds, one after the other, so that a network sees only windows and a sound of
two hours goes through it in as many steps as it needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .sound_windows import PreparedSound, SoundWindows


@dataclass(frozen=True)
class WindowBatch:
    """The W windows of B sounds, on the CPU."""

    windows: Tensor
    """(W, ...) float32 features, in the order of sounds and of time."""
    valid: Tensor
    """(W,) how much of each window is sound."""
    counts: list[int]
    """Number of windows of each sound."""


class WindowEncoder(ABC):
    """An `Encoder` of sounds but for its network and its spec.

    Args:
        preprocess: reads a sound as windows.
        windows_at_once: the most windows that the network gets at once.
    """

    def __init__(self, preprocess: SoundWindows, windows_at_once: int) -> None:
        self.preprocess = preprocess
        self.batch_cost = windows_at_once

    @abstractmethod
    def encode_windows(self, windows: Tensor, valid: Tensor) -> Tensor:
        """Return (w, dim) latents of w windows, of each of which so much is valid."""

    def cost(self, prepared: PreparedSound) -> int:
        """Return the number of windows of a sound."""
        return len(prepared.windows)

    def collate(self, prepared: Sequence[PreparedSound]) -> WindowBatch:
        """Put the windows of B sounds together."""
        padded = self.preprocess.features.padded
        return WindowBatch(
            torch.from_numpy(np.stack([padded(window) for sound in prepared for window in sound.windows])),
            torch.tensor([valid for sound in prepared for valid in sound.valid]),
            [len(sound.windows) for sound in prepared],
        )

    @torch.inference_mode()
    def encode(self, batch: WindowBatch) -> Tensor:
        """Return of each sound the mean of its windows' latents, weighed by how much of each is sound.

        Returns:
            (B, dim) float32.
        """
        parts = zip(batch.windows.split(self.batch_cost), batch.valid.split(self.batch_cost), strict=True)
        latents = torch.cat([self.encode_windows(windows, valid).float() for windows, valid in parts])
        sounds = zip(latents.split(batch.counts), batch.valid.to(latents).split(batch.counts), strict=True)
        # Sound by sound: a window that is not finite must not touch the other sounds of its batch.
        return torch.stack([(windows * valid[:, None]).sum(dim=0) / valid.sum() for windows, valid in sounds])


def mean_of_valid(frames: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of the first `valid` frames of each window.

    Args:
        frames: (w, T, dim).
        valid: (w,) numbers from 1 to T.

    Returns:
        (w, dim) float32.
    """
    is_valid = torch.arange(frames.shape[1], device=frames.device) < valid[:, None].to(frames.device)
    return (frames.float() * is_valid[..., None]).sum(dim=1) / is_valid.sum(dim=1, keepdim=True)


def statistics_of_valid(frames: Tensor, valid: Tensor) -> Tensor:
    """Return mean and standard deviation of the first `valid` frames of each window, and the mean of each third.

    A mean alone says nothing of what came first; of a spoken word or two, thirds say most of it.  Thirds of fewer
    than three frames overlap.

    Args:
        frames: (w, T, dim).
        valid: (w,) numbers from 1 to T.

    Returns:
        (w, 5 * dim) float32.
    """
    valid, rows = valid.to(frames.device), torch.arange(len(frames), device=frames.device)
    mean = mean_of_valid(frames, valid)
    spread = (mean_of_valid(frames.float().square(), valid) - mean.square()).clamp_min(0).sqrt()
    bounds = torch.stack([third * valid // 3 for third in range(4)])
    upto = torch.nn.functional.pad(frames.float().cumsum(dim=1), (0, 0, 1, 0))
    parts = [mean, spread]
    for start, stop in pairwise(bounds):
        end = torch.maximum(stop, start + 1)
        parts.append((upto[rows, end] - upto[rows, start]) / (end - start)[:, None].to(upto))
    return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class FramePooling:
    """What becomes of a window's frames."""

    pool: Callable[[Tensor, Tensor], Tensor]
    """Takes (w, T, dim) frames and how many of each window are valid."""
    parts: int
    """Numbers of a latent for each of a frame's."""
    description: str
    """For an encoder's spec."""


FRAME_POOLINGS = {
    "mean": FramePooling(mean_of_valid, 1, "mean over the valid frames of all windows"),
    "statistics": FramePooling(
        statistics_of_valid,
        5,
        "mean and deviation over a window's valid frames, and the mean of each third of them; mean over windows",
    ),
}
