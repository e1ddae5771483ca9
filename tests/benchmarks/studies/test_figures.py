from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from fusemix.benchmarks.bootstrap import Interval
from fusemix.benchmarks.curves import save
from fusemix.benchmarks.studies.figures import draw

from .made_up import made_up

DIFFERENCES = [(0.02, 0.01, 0.03), (-0.1, -0.2, -0.05)]


def inside(figure: Figure) -> bool:
    """Return whether all texts lie within the picture."""
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    texts = [*figure.texts, *(text for axes in figure.axes for text in (*axes.texts, *axes.get_yticklabels()))]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    return all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)


def test_a_picture_names_levels_splits_and_the_baseline() -> None:
    figure = draw(made_up(DIFFERENCES, DIFFERENCES))
    levels, differences = figure.axes
    assert [label.get_text() for label in levels.get_yticklabels()] == ["base", "level 1", "level 2"]
    assert [text.get_text() for text in levels.texts] == ["validation", "test"]
    assert [text.get_text() for text in differences.texts] == ["validation", "test", " baseline "]
    assert differences.get_xlabel() == 'difference to "base"'
    assert figure.texts[0].get_text() == "How many blocks?"
    assert inside(figure)


def test_nothing_leaves_the_picture_where_all_levels_are_on_one_side() -> None:
    for bounds in ((0.2, 0.1, 0.3), (-0.2, -0.3, -0.1)):
        assert inside(draw(made_up([bounds], [bounds])))


def test_all_intervals_and_seeds_are_in_the_picture() -> None:
    result = made_up(DIFFERENCES, DIFFERENCES, seeds=(-0.5, 0.9), synthetic=True)
    levels, differences = draw(result).axes
    for axes, low, high in ((levels, 0.3 - 0.5, 0.3 + 0.9), (differences, -0.5, 0.9)):
        left, right = axes.get_xlim()
        assert left < low < high < right
    assert [text.get_text() for text in levels.texts][-1] == "ceiling 0.300"


def test_intervals_are_drawn_where_they_are() -> None:
    differences = draw(made_up(DIFFERENCES, [(0.5, 0.4, 0.6)] * 2)).axes[1]
    bars = [bar.get_segments()[0] for bar in differences.collections if isinstance(bar, LineCollection)]
    assert [(float(bar[0][0]), float(bar[1][0])) for bar in bars] == [
        (0.01, 0.03),
        (0.4, 0.6),
        (-0.2, -0.05),
        (0.4, 0.6),
    ]
    # The first level above, and validation above test within it.
    places = [float(bar[0][1]) for bar in bars]
    assert places == sorted(places)
    assert differences.get_ylim()[0] > differences.get_ylim()[1]


def test_an_interval_that_leaves_out_its_own_mean_is_drawn() -> None:
    result = made_up(DIFFERENCES, DIFFERENCES)
    odd = replace(result.levels[0].splits["val"], mrr=Interval(0.5, 0.1, 0.4))
    levels = (replace(result.levels[0], splits={"val": odd, "test": odd}), *result.levels[1:])
    assert len(draw(replace(result, levels=levels)).axes) == 2


def test_a_picture_is_saved_and_leaves_the_users_style_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    save(draw(made_up(DIFFERENCES, DIFFERENCES, synthetic=True)), tmp_path / "study.png")
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before
