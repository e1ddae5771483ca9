"""A small bake-off that is run, and a large one that is made up."""

from __future__ import annotations

import numpy as np

from fusemix.adapters import AdapterSettings
from fusemix.benchmarks.bakeoff.results import Bakeoff, Cell, Difference, Trial
from fusemix.benchmarks.bakeoff.settings import METHODS, BakeoffSettings
from fusemix.benchmarks.bootstrap import Interval
from fusemix.benchmarks.settings import BenchmarkSettings
from fusemix.training.settings import FuseSettings
from tests.benchmarks.small_world import small_world

DIRECTIONS = ("image to text", "text to image")
RECIPE = FuseSettings(
    steps=4, batch_size=64, joint_dim=6, warmup_steps=1, validate_every=2, adapter=AdapterSettings(depth=0)
)
MEASURED = BenchmarkSettings(k=(5, 10), draws=49)
SMALL = BakeoffSettings(("ridge", "asif", "fusemix"), (1.0, 0.5), seeds=2, budget=2)
WORLD = small_world(dims=(7, 5), noise=0.6)


def made_up(
    fractions: tuple[float, ...] = (0.1, 0.3, 1.0),
    methods: tuple[str, ...] = METHODS,
    pair: tuple[str, str] = ("image", "text"),
) -> Bakeoff:
    """Return a bake-off whose figures are random; the first method differs from FuseMix in the first direction."""
    rng = np.random.default_rng(0)
    directions = (f"{pair[0]} to {pair[1]}", f"{pair[1]} to {pair[0]}")

    def interval() -> Interval:
        value = float(rng.uniform(0.05, 0.4))
        return Interval(value, value - 0.04, value + 0.05)

    cells = [
        Cell(
            method,
            fraction,
            round(1340 * fraction),
            round(1300 * fraction),
            3,
            {"neighbours": 800.0, "power": 8.0} if method == "asif" else {"learning rate": 0.0003},
            (Trial({"learning rate": 0.0003}, 0.2, 12.5),),
            412.0,
            103.4 if method == "fusemix" else 0.04,
            {direction: {"R@1": interval(), "MRR": interval()} for direction in directions},
            {direction: {"R@1": [0.1, 0.2, 0.3]} for direction in directions},
            dict.fromkeys(directions, 0.01),
            {
                direction: Difference(interval(), 0.01 if (method, direction) == (methods[0], directions[0]) else 0.3)
                for direction in directions
            }
            if method != "fusemix"
            else {},
        )
        for fraction in fractions
        for method in methods
    ]
    return Bakeoff(
        "emoji",
        "abc",
        "test",
        380,
        "generic",
        (),
        pair,
        {directions[0]: 380, directions[1]: 611},
        {directions[0]: 0, directions[1]: 7},
        {directions[0]: 611, directions[1]: 380},
        dict.fromkeys(directions, 0.0027),
        BakeoffSettings(methods, fractions),
        1000,
        10_000,
        {method: f"what {method} is" for method in methods},
        tuple(cells),
    )
