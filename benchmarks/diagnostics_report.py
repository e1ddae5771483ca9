"""What a joint space looks like, as tables: of its modalities, of their pairs, of the directions between them."""

from __future__ import annotations

from .diagnostics import Diagnostics
from .labels import shortened
from .report import Report, Table

LONGEST_NAME = 34
_KEY = {
    "effective rank": "dimensions that are in use",
    "uniformity": "at most 0; lower is more evenly spread over the sphere",
    "modality gap": "distance of the modalities' means, 0 to 2; 0 is no gap",
    "alignment": "mean squared distance of positive pairs, 0 to 4; 2 is unrelated",
    "hub skewness": "0 where rows turn up evenly among the nearest, large where some are hubs",
    "never found": "rows that are among the nearest of no query",
}


def diagnostics_report(figures: Diagnostics, run: str) -> Report:
    """Return the figures of a space, and what they mean.

    Args:
        figures: of one dataset.
        run: name of the run.
    """
    modalities = [["", "rows", "dimensions", "effective rank", "uniformity"]]
    for one in figures.modalities:
        name = shortened(one.modality, LONGEST_NAME)
        modalities.append([name, f"{one.rows:,}", str(one.dim), f"{one.effective_rank:.1f}", f"{one.uniformity:.2f}"])
    tables = [modalities, *(_pair_tables(figures) if figures.pairs else [])]
    shown = " ".join(cell for table in tables for cell in table[0])
    return Report(
        [f"Embeddings of the run {run} on {figures.dataset}, {figures.split} split"],
        tables,
        [f"{name}: {means}" for name, means in _KEY.items() if name in shown],
    )


def _pair_tables(figures: Diagnostics) -> list[Table]:
    """Return the table of the pairs, and that of the directions."""
    pairs = [["", "items", "modality gap", "alignment"]]
    directions = [[f"{figures.pairs[0].hubness[0].neighbours} nearest", "hub skewness", "never found %"]]
    for pair in figures.pairs:
        name = shortened(f"{pair.a} and {pair.b}", LONGEST_NAME)
        pairs.append([name, f"{pair.items:,}", f"{pair.modality_gap:.3f}", f"{pair.alignment:.3f}"])
        for hubs in pair.hubness:
            name = shortened(hubs.direction, LONGEST_NAME)
            directions.append([name, f"{hubs.skewness:.2f}", f"{100 * hubs.never:.1f}"])
    return [pairs, directions]
