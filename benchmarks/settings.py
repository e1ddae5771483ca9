"""Settings of the retrieval benchmark, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from fusemix.errors import FusemixError


@dataclass(frozen=True)
class BenchmarkSettings:
    """What is measured on a split, and how often."""

    split: str = "test"
    """Split whose rows are pooled."""
    protocol: str = ""
    """generic, coco-5k, coco-1k, flickr30k-1k, audiocaps or clotho; by the name of the dataset if left out."""
    k: tuple[int, ...] = (1, 5, 10)
    """The k of R@k; those of the protocol are measured besides."""
    draws: int = 1000
    """Bootstrap draws over items."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the comparison; the first draws the bootstrap samples too."""

    def __post_init__(self) -> None:
        rules: dict[str, tuple[bool, str]] = {
            "split": (self.split != "train", "not the split that was trained on"),
            "k": (bool(self.k) and min(self.k) >= 1, "numbers of at least 1"),
            "draws": (self.draws >= 1, "at least 1"),
            "seeds": (len(set(self.seeds)) == len(self.seeds) > 0, "different numbers"),
        }
        for name, (valid, bounds) in rules.items():
            if not valid:
                raise FusemixError(f"benchmark.{name} is {getattr(self, name)}: it must be {bounds}")
