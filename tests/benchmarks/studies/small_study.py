"""A study on a tiny world, and figures made up query by query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusemix.adapters.settings import AdapterSettings
from fusemix.benchmarks.studies.design import Data, Level, Study
from fusemix.benchmarks.studies.measuring import Direction, SplitFigures
from fusemix.benchmarks.synthetic import SyntheticSettings
from fusemix.training.settings import FuseSettings

WORLD = SyntheticSettings(train=120, val=30, test=40, dims=(10, 8), shared=3, private=1, frequency=0.5)
FUSE = FuseSettings(
    steps=6,
    batch_size=64,
    joint_dim=6,
    adapter=AdapterSettings(depth=0),
    learning_rate=1e-2,
    warmup_steps=1,
    validate_every=3,
)
SMALL = Study(
    "small",
    "Does mixup help?",
    (Level("with", "mixup"), Level("without", "no mixup", {"mixup": "none"})),
    Data(WORLD),
    FUSE,
    ("first", "second"),
    seeds=2,
    fixed="6 steps",
    setting="mixup",
)


def figures(of_directions: Sequence[Sequence[float]], queries_of_item: Sequence[int]) -> SplitFigures:
    """Return figures in which the queries of item i follow one another, and R@1 is half the MRR."""
    items = np.repeat(np.arange(len(queries_of_item)), queries_of_item)
    directions = {
        name: Direction(items, {"MRR": np.array(values, float), "R@1": np.array(values, float) / 2})
        for name, values in zip(("first to second", "second to first"), of_directions, strict=True)
    }
    return SplitFigures(len(queries_of_item), directions)
