"""Retrieval between the modalities of a split, both directions of each pair, by the protocol of its dataset.

A pair of modalities that no edge aligned is measured too, as ImageBind does: what lies close to the same third
modality lies close to each other, and how close is said under the name emergent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.paired import PairedLatents

from .embedded import embed_rows
from .per_query import PerQuery, per_query, query_figures
from .protocols import Protocol, choose_protocol
from .retrieval_result import RetrievalResult, summarise
from .settings import BenchmarkSettings


@dataclass(frozen=True)
class Measured:
    """A result with the figures of each query that it was summarised from, in the order of its directions."""

    result: RetrievalResult
    directions: tuple[PerQuery, ...]
    pairs: tuple[tuple[str, str], ...]
    """Modality of the queries and of the gallery of each direction."""


def evaluate_retrieval(
    space: JointSpace, latents: PairedLatents, a: str, b: str, settings: BenchmarkSettings
) -> RetrievalResult:
    """Measure retrieval between two modalities of a split, with 95% intervals by bootstrap over items.

    Raises:
        FusemixError: where the split has no item, or the latents are of other encoders than the space.
    """
    split = latents.split(settings.split)
    protocol = protocol_of(latents, settings)
    directions = per_query(space, split, a, b, protocol.k, protocol)
    return summarise(split, directions, (f"{a} to {b}", f"{b} to {a}"), settings, protocol)


def protocol_of(latents: PairedLatents, settings: BenchmarkSettings) -> Protocol:
    """Return the protocol of a split, with the R@k that the settings ask for.

    Raises:
        FusemixError: as `choose_protocol`.
    """
    return choose_protocol(latents.dataset.name, settings.split, settings.protocol).at(settings.k)


def evaluate_pairs(
    space: JointSpace, latents: PairedLatents, trained: Sequence[tuple[str, str]], settings: BenchmarkSettings
) -> RetrievalResult:
    """Return the result of `measure_pairs` without the figures of each query."""
    return measure_pairs(space, latents, trained, settings).result


def measure_pairs(
    space: JointSpace, latents: PairedLatents, trained: Sequence[tuple[str, str]], settings: BenchmarkSettings
) -> Measured:
    """Measure retrieval between every two modalities that a split has, as `evaluate_retrieval` does for one pair.

    Args:
        space: embeds the modalities.
        latents: of one dataset; those of its modalities that the space does not have are left out.
        trained: the pairs that an edge aligned; they come first, in this order.
        settings: split, protocol, metrics, draws.

    Raises:
        FusemixError: where no item of the split has two modalities, or as `evaluate_retrieval`.
    """
    split, protocol = latents.split(settings.split), protocol_of(latents, settings)
    pairs = measurable_pairs(split, [name for name in latents.modalities if name in space.modalities], trained)
    if not pairs:
        raise FusemixError(
            f"no item of the split {settings.split!r} of {latents.dataset.name!r} has two of"
            f" {', '.join(space.modalities)}: nothing to retrieve"
        )
    embeddings = embed_rows(space, split, sorted({name for pair in pairs for name in pair}))
    measured: list[PerQuery] = []
    directed: list[tuple[str, str]] = []
    aligned: list[bool] = []
    for a, b in pairs:
        measured += query_figures(embeddings, split, a, b, protocol.k, protocol)
        directed += [(a, b), (b, a)]
        aligned += 2 * [(a, b) in trained]
    names = [f"{a} to {b}" for a, b in directed]
    result = summarise(split, measured, names, settings, protocol, aligned)
    return Measured(result, tuple(measured), tuple(directed))


def measurable_pairs(
    latents: PairedLatents, modalities: Iterable[str], trained: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return the pairs of modalities that an item has both of, the trained ones first."""
    known = {frozenset(pair) for pair in trained}
    others = [pair for pair in combinations(modalities, 2) if frozenset(pair) not in known]
    there = {name: of.counts > 0 for name, of in latents.modalities.items()}
    return [(a, b) for a, b in [*trained, *others] if {a, b} <= there.keys() and bool((there[a] & there[b]).any())]
