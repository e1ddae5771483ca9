"""Which items of the datasets a run trains on and validates on, and whether there are pairs among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fusemix.errors import FusemixError
from fusemix.latents.paired import PairedLatents
from fusemix.objective import Edge


def with_modalities(datasets: Sequence[PairedLatents], names: Sequence[str]) -> list[PairedLatents]:
    """Return the datasets with those of their modalities that are named."""
    return [
        replace(latents, modalities={name: rows for name, rows in latents.modalities.items() if name in names})
        for latents in datasets
    ]


def items_of_split(datasets: Sequence[PairedLatents], *names: str) -> list[PairedLatents]:
    """Return the items of a split, or of several together, dataset by dataset; datasets without any are left out.

    Raises:
        FusemixError: where none has any, saying which splits there are.
    """
    parts = [latents.split(*names) for latents in datasets if not set(names).isdisjoint(latents.splits)]
    if not parts:
        have = "; ".join(f"{latents.dataset.name}: {', '.join(sorted(set(latents.splits)))}" for latents in datasets)
        raise FusemixError(
            f"no item in the split {' or '.join(map(repr, names))}: training takes train and val, to learn from the"
            f" one and select by the other, and there are ({have})"
        )
    return parts


def has_pair(latents: PairedLatents, edge: Edge) -> bool:
    """Return whether an item has both modalities of an edge."""
    if edge.a not in latents.modalities or edge.b not in latents.modalities:
        return False
    return bool((latents[edge.a].counts.bool() & latents[edge.b].counts.bool()).any())


def check_pairs(train: Sequence[PairedLatents], edges: Sequence[Edge]) -> None:
    """Refuse items of which none has both modalities of an edge.

    Raises:
        FusemixError: naming the edges.
    """
    if not any(has_pair(latents, edge) for latents in train for edge in edges):
        names = ", ".join(edge.name for edge in edges)
        raise FusemixError(
            f"no item of the training split has both modalities of an edge ({names}): nothing to train on; look"
            " whether the modalities name their items alike"
        )
