"""Searching datasets through a joint space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fusemix.errors import FusemixError
from fusemix.extract.settings import EncoderChoice
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents

Encoders = Mapping[str, str | EncoderChoice | Sequence[str | EncoderChoice]]


@dataclass(frozen=True)
class Hit:
    """A row that a search found."""

    score: float
    """Cosine between query and row."""
    item: str
    """Id of the item."""
    source: str
    """Path relative to the dataset, or the caption itself."""
    split: str
    """Split of the item."""
    described_by: str
    """First text of the item, else its first source of another modality than the row's; empty where it has none."""
    dataset: str
    """Name of the dataset."""


class Collection:
    """The embedded rows of one modality of a dataset.

    Args:
        space: the joint space.
        latents: the dataset's latents.
        modality: which rows to search.

    Raises:
        FusemixError: where the latents come from another encoder than the space was trained for.
    """

    def __init__(self, space: JointSpace, latents: PairedLatents, modality: str) -> None:
        space.check_latents(latents)
        self.latents, self.modality = latents, modality
        self._rows = latents[modality].rows
        self._items = latents[modality].item_of_row
        self._embeddings = space.encode(modality, latents[modality].values[self._rows])

    def search(self, query: Tensor, k: int = 10) -> list[Hit]:
        """Return the k rows closest to a (dim,) embedding, best first; all if there are fewer.

        Raises:
            FusemixError: for k below 1.
        """
        if k < 1:
            raise FusemixError(f"asked for the best {k}: ask for at least 1")
        scores = self._embeddings @ query
        best = scores.topk(min(k, len(scores)))
        hits = []
        for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            position = int(self._items[place])
            hits.append(
                Hit(
                    score,
                    str(self.latents.items[position]),
                    str(self.latents[self.modality].sources[int(self._rows[place])]),
                    str(self.latents.splits[position]),
                    self._described_by(position),
                    self.latents.dataset.name,
                )
            )
        return hits

    def _described_by(self, position: int) -> str:
        for name in sorted(self.latents.modalities, key=lambda name: name != "text"):
            other = self.latents[name]
            if name != self.modality and int(other.counts[position]) > 0:
                return str(other.sources[int(other.rows[other.offsets[position]])])
        return ""


def closest(collections: Sequence[Collection], query: Tensor, k: int = 10) -> list[Hit]:
    """Return the k rows of all collections that are closest to a (dim,) embedding, best first.

    Raises:
        FusemixError: for k below 1.
    """
    hits = [hit for collection in collections for hit in collection.search(query, k)]
    return sorted(hits, key=lambda hit: -hit.score)[:k]


def run_latents(root: Path | str, dataset: str, encoders: Encoders) -> PairedLatents:
    """Load the latents of a dataset from `<root>/latents`.

    Args:
        root: folder of `latents/`.
        dataset: name of the dataset.
        encoders: modality -> its encoder, or a list of those whose latents are concatenated.
    """
    return PairedLatents.load(latents_files(root, dataset, encoders))


def latents_files(root: Path | str, dataset: str, encoders: Encoders) -> dict[str, list[Path]]:
    """Return the latents files of a dataset: modality -> those of its encoders.

    A modality of which nothing was extracted is one that the dataset does not have; it is left out, unless there are
    no latents at all.
    """
    from fusemix.extract.extraction import latents_path
    from fusemix.extract.registry import encoder_label

    files = {}
    for modality, given in encoders.items():
        choices = [given] if isinstance(given, str | EncoderChoice) else given
        files[modality] = [latents_path(root, dataset, modality, encoder_label(choice)) for choice in choices]
    there = {modality: paths for modality, paths in files.items() if paths[0].parent.is_dir()}
    return there or files
