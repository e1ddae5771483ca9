"""What the picture shows is what was measured, and nothing of it overlaps."""

from __future__ import annotations

import builtins
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from fusemix.benchmarks.cka import CkaMatrix
from fusemix.benchmarks.curves import DPI, save
from fusemix.benchmarks.heat_map import FRAME, draw
from fusemix.errors import FusemixError

NAMES = ("image/dinov2-large", "image/efficientnet-lite0@1f2e3d4c", "text/bge_$x$", "audio/" + "very-" * 12 + "long")


def matrix(count: int = 4, *, same_modality: bool = False) -> CkaMatrix:
    rng = np.random.default_rng(0)
    values = rng.uniform(-0.02, 0.6, size=(count, count))
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1)
    names = NAMES[:count]
    modalities = tuple("image" if same_modality else name.partition("/")[0] for name in names)
    rows = tuple(tuple(row) for row in values.tolist())
    items = tuple(tuple(1000 + i * j for j in range(count)) for i in range(count))
    return CkaMatrix("small_$y$", "f00d", "train", names, modalities, items, rows, rows)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_each_square_has_the_value_of_its_pair(count: int) -> None:
    measured = matrix(count)
    [axes] = draw(measured).axes
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown == {
        (column, row): "1" if row == column else f"{measured.values[row][column]:.2f}"
        for row in range(count)
        for column in range(count)
    }
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        label.get_text() for label in axes.get_xticklabels()
    ]
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == list(NAMES[:2])
    assert not any(label.get_parse_math() for label in (*axes.get_xticklabels(), *axes.get_yticklabels()))


def test_the_most_alike_of_two_modalities_are_framed() -> None:
    measured = matrix()
    figure = draw(measured)
    frames = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and not patch.get_fill()]
    best = measured.best_pair()
    assert best is not None
    centres = {
        (round(x + width / 2), round(y + width / 2)) for x, y, width in ((*f.get_xy(), f.get_width()) for f in frames)
    }
    assert centres == {best, best[::-1]}
    assert {frame.get_edgecolor() for frame in frames} == {
        (*tuple(int(FRAME[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1)
    }
    assert "Framed: the two of different modalities that are most alike." in texts(figure)


def test_encoders_of_one_modality_have_no_frame() -> None:
    figure = draw(matrix(same_modality=True))
    assert not [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and not patch.get_fill()]
    assert not [text for text in texts(figure) if text.startswith("Framed")]


def test_the_heading_says_what_was_measured_on_what() -> None:
    assert "small_$y$, split train: 1,000 to 1,006 items" in texts(draw(matrix()))
    assert "small_$y$, split train: 1,000 items" in texts(draw(matrix(2)))


@pytest.mark.parametrize("count", [2, 4])
def test_no_text_is_cut_off_or_lies_on_another(count: int) -> None:
    figure = draw(matrix(count))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    [axes] = figure.axes
    labels = [*figure.texts, *axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]
    boxes = [label.get_window_extent(renderer) for label in labels if label.get_text()]
    width, height = figure.get_size_inches() * figure.dpi
    for box in boxes:
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    assert not [1 for one, other in combinations(boxes, 2) if one.overlaps(other)]


def test_text_is_readable_on_its_square() -> None:
    figure = draw(matrix())
    [axes] = figure.axes
    shades = axes.images[0]
    for text in axes.texts:
        column, row = (int(place) for place in text.get_position())
        if row != column:
            rgb = np.array(shades.cmap(shades.norm(shades.get_array()[row, column]))[:3])  # type: ignore[index]
            linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
            light = float(linear @ [0.2126, 0.7152, 0.0722])
            contrast = 1.05 / (light + 0.05) if text.get_color() == "white" else (light + 0.05) / 0.05
            assert contrast >= 4.5


def test_a_picture_is_written_as_png(tmp_path: Path) -> None:
    figure = draw(matrix())
    save(figure, tmp_path / "cka.png")
    with Image.open(tmp_path / "cka.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == tuple(int(side * DPI) for side in figure.get_size_inches())


def test_a_missing_matplotlib_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FusemixError, match=r"drawing CKA needs the package 'matplotlib': .*fusemix\[plots\]"):
        draw(matrix())
