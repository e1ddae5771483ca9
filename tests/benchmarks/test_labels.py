from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from fusemix.benchmarks.labels import Label, place_labels, shortened, spread


def test_labels_with_room_stay_where_their_lines_end() -> None:
    wanted = [0.9, 0.1, 0.5]
    assert spread(wanted, [0.1, 0.1, 0.1]) == wanted


@pytest.mark.parametrize("seed", range(20))
def test_labels_keep_apart_in_order_and_within_the_panel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 9))
    wanted, sizes = rng.uniform(-0.2, 1.2, count).tolist(), rng.uniform(0.02, 0.11, count).tolist()
    placed = spread(wanted, sizes)
    order = np.argsort(wanted)
    for low, high in pairwise(order):
        assert placed[high] - placed[low] >= (sizes[low] + sizes[high]) / 2 - 1e-9
    assert min(place - size / 2 for place, size in zip(placed, sizes, strict=True)) >= -1e-9
    assert max(place + size / 2 for place, size in zip(placed, sizes, strict=True)) <= 1 + 1e-9


def test_too_many_labels_leave_the_panel_at_the_bottom_but_do_not_overlap() -> None:
    placed = spread([0.5] * 5, [0.3] * 5)
    assert np.diff(placed) == pytest.approx([0.3] * 4)
    assert max(placed) == pytest.approx(0.85)


def test_a_label_stands_level_with_its_point() -> None:
    axes = Figure().add_axes((0.1, 0.1, 0.5, 0.8))
    axes.plot([0, 10], [1, 3])
    axes.set_yscale("log")
    axes.set_ylim(1, 100)
    place_labels(axes, [Label("a $ of _", 10, 10, "#000000")], 2.0)
    [text] = axes.texts
    assert isinstance(text, Annotation)
    assert text.get_text() == "a $ of _"
    assert list(text.xyann) == pytest.approx([1.05, 0.5])


def test_a_long_text_loses_its_middle() -> None:
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 6) == "abc…jk"
    assert [len(shortened("x" * 50, longest)) for longest in (2, 7, 13)] == [2, 7, 13]
