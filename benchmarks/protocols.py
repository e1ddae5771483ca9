"""Protocols of retrieval: what a published figure was measured on and how, so that ours is measured the same way.

A protocol changes figures by several points without a word: which captions count as right, whether R@k asks for any
right answer or for all, how a median is rounded, whether the gallery has 5,000 pictures or five times 1,000.  So each
is spelled out here as an object that goes into every result.  A split whose counts are not the published ones is
measured all the same, and warned of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fusemix.errors import FusemixError, nearest
from fusemix.latents.paired import PairedLatents


@dataclass(frozen=True)
class PublishedCount:
    """How many items and captions a split has where others measured on it."""

    items: int
    captions: int
    source: str


@dataclass(frozen=True)
class Protocol:
    """What is measured on a split, and what it is called."""

    name: str
    source: str
    """Where the protocol is from: paper, repository, file."""
    datasets: tuple[str, ...] = ()
    """Names of the datasets that it is for; it is chosen by them."""
    split: str = ""
    """The split that it is for; empty for any."""
    published: tuple[PublishedCount, ...] = ()
    """Counts that published figures were measured on; they differ where copies of a dataset do."""
    positives: Literal["item", "content"] = "item"
    """`item`: the rows of the query's own item; `content`: also every row of equal content to one of these."""
    metrics: tuple[str, ...] = ("R@1", "R@5", "R@10")
    """What papers print of it, and what comparisons test.  R@k is hit@k: whether any right answer is among the first
    k; true recall, the part of them that is, is measured too, as `recall@k`."""
    median: Literal["mid", "floor"] = "floor"
    """`mid`: the median of the mid-ranks, which may be 2.5; `floor`: its whole part."""
    folds: int = 1
    """Number of galleries that the items are cut into, in the order of their file; figures are means over them."""
    remark: str = ""
    """What one has to know to compare figures."""

    def at(self, k: Sequence[int]) -> Protocol:
        """Return the protocol with the R@k of these k besides its own."""
        others = [metric for metric in self.metrics if not metric.startswith("R@")]
        return replace(self, metrics=(*(f"R@{n}" for n in sorted({*self.k, *k})), *others))

    @property
    def k(self) -> tuple[int, ...]:
        """The k of its R@k."""
        return tuple(int(metric.removeprefix("R@")) for metric in self.metrics if metric.startswith("R@"))

    def warnings(self, items: int, captions: int) -> list[str]:
        """Return a line for counts that are not the published ones.

        Args:
            items: number of items of the split.
            captions: number of its rows of text.
        """
        if not self.published or any((items, captions) == (of.items, of.captions) for of in self.published):
            return []
        known = "; ".join(f"{of.items:,} and {of.captions:,} ({of.source})" for of in self.published)
        remark = f".  {self.remark}" if self.remark else ""
        return [
            f"{items:,} items and {captions:,} captions are not what the protocol {self.name} was published with:"
            f" {known}; figures are not comparable with published ones{remark}"
        ]

    def galleries(self, latents: PairedLatents) -> list[Tensor]:
        """Return the positions of the items of each fold, increasing: all of them where there is one fold.

        Items are taken in the order of their first row in the file of the first modality, which is the published
        order, and folds are as even as can be, in items that lack that modality too.

        Raises:
            FusemixError: where there are fewer items than folds.
        """
        if len(latents) < self.folds:
            raise FusemixError(
                f"protocol {self.name} cuts the items into {self.folds} folds, and there are only {len(latents)}:"
                " choose another with benchmark.protocol"
            )
        first = next(iter(latents.modalities.values()))
        place = np.full(len(latents), -1)
        np.maximum.at(place, first.item_of_row.numpy(), first.rows.numpy())
        having = np.argsort(place, kind="stable")[np.count_nonzero(place < 0) :]
        lacking = np.flatnonzero(place < 0)
        folds = zip(np.array_split(having, self.folds), np.array_split(lacking, self.folds)[::-1], strict=True)
        return [torch.from_numpy(np.sort(np.concatenate(fold))) for fold in folds]


GENERIC = Protocol(
    name="generic",
    source="fusemix: all rows of the split's items, any two modalities, both directions",
    positives="content",
    metrics=("MRR",),
    median="mid",
)
COCO_5K = Protocol(
    name="coco-5k",
    source="Karpathy and Fei-Fei, CVPR 2015 (split); LAION-AI/CLIP_benchmark, metrics/zeroshot_retrieval.py",
    datasets=("coco",),
    split="test",
    published=(
        PublishedCount(5_000, 25_010, "CLIP_benchmark: all captions"),
        PublishedCount(5_000, 25_000, "eccv-caption: five each"),
    ),
)
COCO_1K = replace(
    COCO_5K,
    name="coco-1k",
    source="fartashf/vsepp, evaluation.py: mean over five folds of 1,000 pictures, one after the other",
    datasets=(),
    folds=5,
)
FLICKR30K_1K = Protocol(
    name="flickr30k-1k",
    source="Karpathy and Fei-Fei, CVPR 2015 (split); LAION-AI/CLIP_benchmark, metrics/zeroshot_retrieval.py",
    datasets=("flickr30k",),
    split="test",
    published=(PublishedCount(1_000, 5_000, "Karpathy's split"),),
)
AUDIOCAPS = Protocol(
    name="audiocaps",
    source="Kim et al., NAACL 2019 (split); LAION-AI/CLAP (R@k, mAP@10, MedR)",
    datasets=("audiocaps",),
    split="test",
    published=(
        PublishedCount(975, 4_875, "its test.csv"),
        PublishedCount(883, 4_411, "mteb"),
    ),
    metrics=("R@1", "R@5", "R@10", "mAP@10"),
    remark="clips vanish from YouTube, so that counts differ between papers",
)
CLOTHO = Protocol(
    name="clotho",
    source="Drossos et al., ICASSP 2020 (evaluation split); LAION-AI/CLAP (R@k, mAP@10, MedR)",
    datasets=("clotho",),
    split="test",
    published=(PublishedCount(1_045, 5_225, "Clotho 2.1, evaluation"),),
    metrics=("R@1", "R@5", "R@10", "mAP@10"),
)

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol for protocol in (GENERIC, COCO_5K, COCO_1K, FLICKR30K_1K, AUDIOCAPS, CLOTHO)
}


def choose_protocol(dataset: str, split: str, name: str = "") -> Protocol:
    """Return the protocol of a name, or else the one that is for the split of a dataset, or else `generic`.

    Args:
        dataset: name of the dataset.
        split: what is measured.
        name: `benchmark.protocol`.

    Raises:
        FusemixError: where there is none of that name, or it is for another split.
    """
    if not name:
        fits = (of for of in PROTOCOLS.values() if dataset in of.datasets and split == of.split)
        return next(fits, GENERIC)
    if name not in PROTOCOLS:
        raise FusemixError(f"benchmark.protocol: there is no {name!r}: {nearest(name, PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    if protocol.split not in ("", split):
        raise FusemixError(
            f"benchmark.protocol: {name} is for the split {protocol.split!r}, not for {split!r}: measure that, or"
            " choose generic"
        )
    return protocol
