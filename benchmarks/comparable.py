"""Which runs may be compared: those whose figures are of the same queries and the same galleries.

A figure on other captions, or on a gallery that lacks what one encoder could not read, is another figure.  That two
tables look alike says nothing of it, so it is checked item by item and query by query.
"""

from __future__ import annotations

import numpy as np

from fusemix.errors import FusemixError

from .results import StoredRun

_SAME = ("dataset", "fingerprint", "split")


def check_comparable(a: StoredRun, b: StoredRun) -> None:
    """Refuse runs whose figures are not of the same queries and galleries.

    Raises:
        FusemixError: saying in what they differ.
    """

    def differ(what: str, of_a: object, of_b: object) -> FusemixError:
        return FusemixError(f"{a.name} and {b.name} cannot be compared: {what} {of_a} and {of_b}")

    protocols = [run.record["protocol"]["name"] for run in (a, b)]
    if protocols[0] != protocols[1]:
        raise differ("the protocols are", *protocols)
    for field in _SAME:
        if a.record[field] != b.record[field]:
            raise differ(f"the {field}s are", *(repr(run.record[field]) for run in (a, b)))
    shared = [name for name in a.directions if name in b.directions]
    if not shared:
        raise differ("they have no direction in common, but", ", ".join(a.directions), ", ".join(b.directions))
    if a.items != b.items:
        raise differ("the items are not the same ones,", len(a.items), len(b.items))
    for name in shared:
        one, other = a.directions[name], b.directions[name]
        if one.gallery != other.gallery:
            raise differ(f"the galleries of {name} have", f"{one.gallery} rows", other.gallery)
        if one.sources != other.sources or not np.array_equal(one.items, other.items):
            raise differ(f"the queries of {name} are not the same ones,", len(one.sources), len(other.sources))
