"""Settings of the bake-off, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from fusemix.errors import FusemixError, nearest

# In the order of tables and of what is run: what takes no training comes first.
METHODS = ("ridge", "procrustes", "cca", "asif", "lit-style", "sharelock-style", "sail-style", "fusemix")
BUDGET, MOST_TRIED = 3, 4


@dataclass(frozen=True)
class BakeoffSettings:
    """What is compared, on how much data, and how much tuning each method gets."""

    methods: tuple[str, ...] = METHODS
    """Names of the methods."""
    fractions: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Parts of the training items, each of which lies in the larger ones."""
    seeds: int = 3
    """Runs of each method, which differ in the items of a fraction and in the randomness of training."""
    budget: int = BUDGET
    """Configurations of each method that are tried on validation, 1 to 4."""

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in METHODS:
                raise FusemixError(f"unknown method {name!r}: {nearest(name, METHODS)}")
        rules: dict[str, tuple[bool, str]] = {
            "methods": (0 < len(self.methods) == len(set(self.methods)), "different names, one or more"),
            "fractions": (
                0 < len(self.fractions) == len(set(self.fractions)) and all(0 < part <= 1 for part in self.fractions),
                "different numbers above 0, up to 1",
            ),
            "seeds": (self.seeds >= 1, "at least 1"),
            "budget": (1 <= self.budget <= MOST_TRIED, f"1 to {MOST_TRIED} configurations"),
        }
        for name, (valid, bounds) in rules.items():
            if not valid:
                given = getattr(self, name)
                told = ",".join(map(str, given)) if isinstance(given, tuple) else given
                raise FusemixError(f"--{name} {told}: it must be {bounds}")
