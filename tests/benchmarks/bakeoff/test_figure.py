from __future__ import annotations

import sys
from io import BytesIO

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from PIL import Image

from fusemix.benchmarks.bakeoff.figure import draw, look
from fusemix.benchmarks.bakeoff.settings import METHODS
from fusemix.errors import FusemixError

from .baked import DIRECTIONS, made_up


def test_no_two_methods_look_alike_even_without_colours() -> None:
    looks = [look(method) for method in METHODS]
    assert len({colour for colour, _, _ in looks}) == len(METHODS)
    assert len({marker for _, marker, _ in looks}) == len(METHODS)


def test_the_picture_has_the_figures_of_the_table() -> None:
    result = made_up()
    *scores, times = draw(result).axes
    for axes, direction in zip(scores, DIRECTIONS, strict=True):
        assert axes.get_title(loc="left") == f"{direction}, R@1 %"
        bars = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
        assert len(bars) == len(METHODS)
        for method, bar in zip(METHODS, bars, strict=True):
            found = [result.cell(method, fraction).metrics[direction]["R@1"] for fraction in (0.1, 0.3, 1.0)]
            places, values = (np.array(axis, float) for axis in bar.lines[0].get_data())
            np.testing.assert_allclose(values, [100 * one.value for one in found])
            segments = bar.lines[2][0].get_segments()
            np.testing.assert_allclose(
                [segment[:, 1] for segment in segments], [[100 * one.low, 100 * one.high] for one in found]
            )
            # Side by side, but at their number of items.
            np.testing.assert_allclose(places, [134, 402, 1340], rtol=0.15)
        texts = [text.get_text() for text in axes.texts]
        assert [text.rsplit(" ", 1)[0] for text in texts] == list(METHODS)
        assert axes.get_ylim() == scores[0].get_ylim(), "both directions are drawn to one scale"
    assert [label.get_text() for label in times.get_yticklabels()] == list(METHODS)


@pytest.mark.parametrize(("fractions", "methods"), [((1.0,), METHODS), ((0.5, 1.0), ("ridge",)), ((0.3,), ("cca",))])
def test_few_fractions_or_methods_are_drawn_too(fractions: tuple[float, ...], methods: tuple[str, ...]) -> None:
    file = BytesIO()
    draw(made_up(fractions, methods)).savefig(file, format="png", dpi=20)
    assert np.asarray(Image.open(file).convert("L")).std() > 0


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        FusemixError, match=r"drawing the bake-off needs the package .*pip install 'fusemix\[plots\]'"
    ):
        draw(made_up())
