"""The learning rate of a step, and which parameters decay."""

from __future__ import annotations

import math

import torch
from torch import nn

from fusemix.training.settings import FuseSettings


def learning_rate(step: int, settings: FuseSettings) -> float:
    """Return the learning rate of a step, counted from 0: linear warm-up, then half a cosine.

    The warm-up starts from `final_learning_rate` and would reach the highest rate at step `warmup_steps`, where the
    cosine begins; the cosine would reach the final rate at step `steps`.
    """
    low, high, warmup = settings.final_learning_rate, settings.learning_rate, settings.warmup_steps
    if step < warmup:
        return low + (high - low) * step / warmup
    progress = (step - warmup) / max(settings.steps - warmup, 1)
    return low + (high - low) * (1 + math.cos(math.pi * progress)) / 2


def make_optimizer(module: nn.Module, settings: FuseSettings) -> torch.optim.AdamW:
    """Return fused AdamW (0.9, 0.999) that decays weight matrices but neither vectors nor temperatures."""
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.999), fused=True)
