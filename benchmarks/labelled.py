"""Latents or embeddings of one modality with the class of each row, and how they are divided into folds."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fusemix.errors import FusemixError, nearest
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import DatasetStamp

Integers = npt.NDArray[np.int64]

NAMES_TO_LIST = 12


@dataclass(frozen=True)
class LabelledRows:
    """N rows of one modality with their classes.

    Attributes:
        features: (N, D) float32, latents or L2-normalised embeddings.
        labels: (N,) number of each row's class.
        names: of the C classes.
        items: (N,) position of each row's item among all items; rows of one item share it.
        splits: (N,) split of each row's item.
        modality: what the rows are of.
        kind: `latents` or `embeddings`.
        dataset: where the items come from.
        unlabelled: items that were left out because they have no class.
    """

    features: Tensor
    labels: Integers
    names: tuple[str, ...]
    items: Integers
    splits: npt.NDArray[np.object_]
    modality: str
    kind: str
    dataset: DatasetStamp
    unlabelled: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, rows: Integers) -> LabelledRows:
        """Return some of the rows."""
        return replace(
            self,
            features=self.features[torch.from_numpy(rows)],
            labels=self.labels[rows],
            items=self.items[rows],
            splits=self.splits[rows],
        )

    def in_split(self, name: str) -> Integers:
        """Return the places of the rows of a split.

        Raises:
            FusemixError: where it has none.
        """
        rows = np.flatnonzero(self.splits == name)
        if len(rows) == 0:
            raise FusemixError(
                f"no {self.modality} row of {self.dataset.name!r} that has a class is in the split {name!r}"
                f" (splits with rows: {', '.join(sorted(set(self.splits))) or 'none'})"
            )
        return rows


def labelled_rows(
    latents: PairedLatents,
    modality: str,
    labels: Mapping[str, str | int],
    names: Sequence[str] | None = None,
    space: JointSpace | None = None,
) -> LabelledRows:
    """Gather the rows whose item has a class.

    Args:
        latents: the items.
        modality: whose rows are classified.
        labels: item -> name or number of its class; items without one are left out.
        names: of the classes, in the order of their numbers; those found, sorted, if left out.
        space: embeds the rows; without one the latents are taken as they are.

    Raises:
        FusemixError: where a label is no class, or nothing has a label.
    """
    names = sorted({str(label) for label in labels.values()}) if names is None else names
    of, numbers = latents[modality], class_numbers(labels, names)
    number_of_item = np.array([numbers.get(item, -1) for item in latents.items], np.int64)
    items = of.item_of_row.numpy()
    kept = np.flatnonzero(number_of_item[items] >= 0)
    if len(kept) == 0:
        raise FusemixError(
            f"no {modality} row of {latents.dataset.name!r} has a class: are these the labels of its items?"
        )
    values = of.values[of.rows[torch.from_numpy(kept)]].float()
    if space is not None:
        space.check_latents(latents)
        values = space.encode(modality, values)
    items = items[kept]
    return LabelledRows(
        values,
        number_of_item[items],
        tuple(names),
        items,
        latents.splits[items],
        modality,
        "latents" if space is None else "embeddings",
        latents.dataset,
        int(((number_of_item < 0) & (of.counts.numpy() > 0)).sum()),
    )


def class_numbers(labels: Mapping[str, str | int], names: Sequence[str]) -> dict[str, int]:
    """Return the number of each item's class.

    Args:
        labels: item -> name or number of its class.
        names: of the classes.

    Raises:
        FusemixError: naming an item whose label is no class, or a name that several classes share.
    """
    number_of = {name: number for number, name in enumerate(names)}
    found = {}
    for item, label in labels.items():
        if isinstance(label, str):
            if label not in number_of:
                raise FusemixError(f"item {item!r} has the label {label!r}, which is no class: {_hint(label, names)}")
            number = number_of[label]
            if names[number] in names[:number]:
                raise FusemixError(
                    f"item {item!r} has the label {label!r}, the name of several classes: give labels as numbers"
                )
        elif not 0 <= label < len(names):
            raise FusemixError(
                f"item {item!r} has the label {label}, outside the {len(names)} classes 0 to {len(names) - 1}"
            )
        else:
            number = int(label)
        found[item] = number
    return found


def _hint(label: str, names: Sequence[str]) -> str:
    hint = nearest(label, names)
    # A line that lists a thousand classes helps nobody.
    many = len(names) > NAMES_TO_LIST and not hint.startswith("did you mean")
    return f"there are {len(names)}, such as {', '.join(map(repr, names[:NAMES_TO_LIST]))}" if many else hint


def texts_as_labels(latents: PairedLatents, modality: str = "text") -> dict[str, str]:
    """Return the one text of each item as its label, as ESC-50 and UrbanSound8K have them.

    Raises:
        FusemixError: naming an item that has several.
    """
    of, labels = latents[modality], dict[str, str]()
    for row, item in zip(of.rows.tolist(), of.item_of_row.tolist(), strict=True):
        name, text = latents.items[item], of.sources[row]
        if labels.setdefault(name, text) != text:
            raise FusemixError(f"item {name!r} has the texts {labels[name]!r} and {text!r}: a class is named by one")
    return labels


def splits_of(rows: LabelledRows) -> list[str]:
    """Return the splits that rows are in, fold10 after fold9."""
    return sorted(set(rows.splits), key=lambda name: (len(name), name))


def check_labelled(latents: PairedLatents, modality: str, labels: Container[str], source: str) -> None:
    """Refuse items that have a row of a modality but no label.

    Raises:
        FusemixError: naming one of them and `source`, where labels were looked for.
    """
    there = latents.items[latents[modality].counts.numpy() > 0]
    without = [item for item in there if item not in labels]
    if len(without) == len(there):
        raise FusemixError(f"{source} has no label for any of the {len(there)} items of {latents.dataset.name!r}")
    if without:
        more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
        raise FusemixError(
            f"{source} has no label for the item {without[0]!r}{more}: add it, empty where the item is to be left out"
        )


@dataclass(frozen=True)
class Fold:
    """Places of the rows to train on, to choose settings on, and to test on."""

    name: str
    train: Integers
    validation: Integers
    test: Integers


def holdout(rows: LabelledRows, test: str = "test") -> list[Fold]:
    """Return the one fold of a dataset with the splits `train`, `val` (which may be empty) and one to test on.

    Raises:
        FusemixError: where a split has no rows, or the test split is the one to train on.
    """
    if test == "train":
        raise FusemixError("the split that is tested on must not be 'train'")
    validation = np.flatnonzero(rows.splits == "val") if test != "val" else np.empty(0, np.int64)
    return [Fold(test, rows.in_split("train"), validation, rows.in_split(test))]


def leave_one_out(rows: LabelledRows) -> list[Fold]:
    """Return a fold for each split: tested on it, settings chosen on the next one, trained on the rest.

    Raises:
        FusemixError: where there are fewer than three splits.
    """
    names = splits_of(rows)
    if len(names) < 3:
        raise FusemixError(
            f"leaving one fold out needs at least three folds, {rows.dataset.name!r} has {', '.join(names) or 'none'}"
        )
    folds = []
    for number, name in enumerate(names):
        after = names[(number + 1) % len(names)]
        rest = np.flatnonzero((rows.splits != name) & (rows.splits != after))
        folds.append(Fold(name, rest, rows.in_split(after), rows.in_split(name)))
    return folds
