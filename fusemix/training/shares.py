"""What a step takes of each dataset: a fixed number of items, in proportion to the datasets' weights.

A dataset weighs as much as it has pairs, or what `fuse.dataset_weights` says in their place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusemix.batch import pair_counts
from fusemix.errors import FusemixError, nearest
from fusemix.latents.paired import PairedLatents
from fusemix.training.settings import FuseSettings


@dataclass(frozen=True)
class Share:
    """What a step takes of a dataset.

    Attributes:
        items: items to train on; where every caption is a pair of its own, pairs.
        pairs: over all items, the rows of the modality with the most.
        weight: the share of a step that is asked for, at most 1.
        taken: items that a step takes.
    """

    dataset: str
    items: int
    pairs: int
    weight: float
    taken: int

    def __str__(self) -> str:
        if not self.taken:
            return f"{self.dataset}: weight 0 in fuse.dataset_weights, left out"
        items = "" if self.items == self.pairs else f"{self.items:,} items with "
        epoch = self.items // self.taken
        return (
            f"{self.dataset}: {items}{self.pairs:,} pairs to train on; {self.taken:,} items of each step"
            f" ({100 * self.weight:.3g} %), an epoch is {epoch:,} step{'' if epoch == 1 else 's'}"
        )


def share_out(train: Sequence[PairedLatents], settings: FuseSettings) -> list[Share]:
    """Divide the items of a step among datasets, by largest remainder.

    Args:
        train: the items to train on, of each dataset.
        settings: batch size, mixup, weights of datasets.

    Raises:
        FusemixError: for datasets of one name, a weight of a dataset that is not there, a share that rounds to no
            item, fewer items than a share asks for, or a batch of one pair.
    """
    names = [latents.dataset.name for latents in train]
    _check_names(names, settings.dataset_weights)
    if settings.batch_size < 2:
        raise FusemixError("fuse.batch_size is 1: a pair alone has nothing to be told apart from; set at least 2")
    per_step = settings.batch_size * items_a_pair(settings)
    pairs = [int(pair_counts(latents).sum()) for latents in train]
    weights = [settings.dataset_weights.get(name, count) for name, count in zip(names, pairs, strict=True)]
    total = sum(weights)
    if total <= 0:
        why = "fuse.dataset_weights sum to 0" if sum(pairs) else f"no item of {', '.join(map(repr, names))} has a row"
        raise FusemixError(f"nothing to train on: {why}")
    taken = largest_remainder(per_step, weights)
    shares = [
        Share(name, len(latents), count, weight / total, items)
        for name, latents, count, weight, items in zip(names, train, pairs, weights, taken, strict=True)
    ]
    for share in shares:
        _check(share, per_step, settings)
    return shares


def items_a_pair(settings: FuseSettings) -> int:
    """Return how many items are loaded for each pair that enters the loss."""
    return 2 if settings.mixup == "halves" else 1


def largest_remainder(total: int, weights: Sequence[float]) -> list[int]:
    """Divide `total` in proportion to weights: each gets its quota rounded down, the largest remainders one more."""
    quotas = [total * weight / sum(weights) for weight in weights]
    parts = [int(quota) for quota in quotas]
    remainders = sorted(range(len(parts)), key=lambda part: (parts[part] - quotas[part], part))
    for part in remainders[: total - sum(parts)]:
        parts[part] += 1
    return parts


def _check_names(names: Sequence[str], weights: Mapping[str, float]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FusemixError(f"two datasets are named {twice[0]!r}: their weights and items could not be told apart")
    for name in weights:
        if name not in names:
            raise FusemixError(
                f"fuse.dataset_weights: no dataset with items to train on is named {name!r}: {nearest(name, names)}"
            )


def _check(share: Share, per_step: int, settings: FuseSettings) -> None:
    kind = "pairs" if settings.captions == "all" else "items"
    if share.weight > 0 and share.taken == 0:
        raise FusemixError(
            f"dataset {share.dataset!r}: its share of {100 * share.weight:.2g} % of {per_step} items a step rounds to"
            " no item; raise fuse.batch_size or its weight in fuse.dataset_weights, or leave it out with weight 0"
        )
    if share.taken > share.items:
        of = "" if share.taken == per_step else f"{100 * share.weight:.3g} % of {per_step}; "
        raise FusemixError(
            f"dataset {share.dataset!r}: {share.items} {kind} to train on, but a step takes {share.taken} ({of}mixup"
            f" of halves takes two for each of fuse.batch_size): {_advice(int(share.items / share.weight))}"
        )


def _advice(fitting: int) -> str:
    if fitting < 2:
        return "training takes more than one"
    if fitting < 4:
        return f"set fuse.batch_size to {fitting} and fuse.mixup to shift or none"
    return f"set fuse.batch_size to at most {fitting // 2} with mixup of halves, {fitting} without"
