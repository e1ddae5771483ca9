"""Datasets by name."""

from __future__ import annotations

from importlib import import_module

from fusemix.errors import FusemixError, nearest

from ..dataset import Dataset

_DATASETS = {"emoji": "fusemix.extract.datasets.emoji:emoji"}


def load_dataset(name: str) -> Dataset:
    """Return a dataset: its items, splits and sources, nothing decoded.

    Raises:
        FusemixError: for an unknown name, or where the dataset's files are missing or changed.
    """
    if name not in _DATASETS:
        raise FusemixError(f"unknown dataset {name!r}: {nearest(name, _DATASETS)}")
    module, _, function = _DATASETS[name].partition(":")
    dataset: Dataset = getattr(import_module(module), function)()
    return dataset
