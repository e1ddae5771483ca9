"""What the picture shows is what was logged: lines are compared with the file, not pixels with pixels."""

from __future__ import annotations

import builtins
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from fusemix.benchmarks.curves import DPI, draw, save, smoothed
from fusemix.benchmarks.history import Curve, History, read_history
from fusemix.errors import FusemixError
from tests.benchmarks.logged_runs import TRIANGLE, logged, write_run

Lines = list[dict[str, Any]]


def history(tmp_path: Path, name: str, lines: Lines) -> History:
    read = read_history(write_run(tmp_path / name, lines))
    assert read is not None
    return read


def drawn(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    """Label of each line -> its data, and no label twice."""
    lines = [line for axes in figure.axes for line in axes.lines if not str(line.get_label()).startswith("_")]
    found = {str(line.get_label()): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in lines}
    assert len(found) == len(lines)
    return {label: (x.tolist(), y.tolist()) for label, (x, y) in found.items()}


def panels(figure: Figure) -> dict[str, list[Axes]]:
    by_title: dict[str, list[Axes]] = {}
    for axes in figure.axes:
        by_title.setdefault(axes.get_title(loc="left").removesuffix(", log scale"), []).append(axes)
    return by_title


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def labels(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_the_lines_of_a_run_are_its_file(tmp_path: Path) -> None:
    lines = logged(30, TRIANGLE)
    shown = drawn(draw([history(tmp_path, "run", lines)]))
    hidden = {"step", "lambda", "memory", "mrr"}
    fields = {name for line in lines for name in line} - hidden
    chosen = {label for label in shown if label.endswith(", chosen")}
    assert shown.keys() - chosen == {f"run: {name}" for name in fields}
    for name in fields:
        having = [line for line in lines if name in line]
        assert shown[f"run: {name}"] == ([line["step"] for line in having], [line[name] for line in having])


def test_the_chosen_step_is_ringed_on_every_curve_of_a_validation(tmp_path: Path) -> None:
    lines = logged(30, TRIANGLE[:1])
    figure = draw([history(tmp_path, "run", lines)])
    best = max((line for line in lines if "mrr" in line), key=lambda line: float(line["mrr"]))
    shown = drawn(figure)
    for way in ("image-to-text", "text-to-image"):
        for metric in ("R@1", "mrr"):
            assert shown[f"run: {way}/{metric}, chosen"] == ([best["step"]], [best[f"{way}/{metric}"]])
    assert f"run: 30 steps, chosen after {best['step'] + 1} with validation MRR {best['mrr']:.4f}" in texts(figure)


def test_each_edge_has_its_panels_with_directions_at_the_ends_of_the_lines(tmp_path: Path) -> None:
    figure = draw([history(tmp_path, "run", logged(30, TRIANGLE))])
    by_title = panels(figure)
    assert [len(by_title[title]) for title in ("training loss", "validation R@1", "validation MRR")] == [3, 3, 3]
    small = ("total loss", "temperature", "learning rate", "gradient norm", "items per second")
    assert [len(by_title[title]) for title in small] == [1] * 5
    assert labels(by_title["validation MRR"][1]) == ["text → audio", "audio → text"]
    assert labels(by_title["temperature"][0]) == ["image-text", "text-audio", "image-audio"]
    titles = [text for text in texts(figure) if "↔" in text]
    assert titles == ["image ↔ text", "text ↔ audio", "image ↔ audio"]


def test_runs_lie_over_each_other_and_are_named_at_the_ends_of_their_lines(tmp_path: Path) -> None:
    names = ["first", "second", "a-name-that-is-much-longer-than-its-place"]
    runs = {name: logged(20 + 10 * seed, seed=seed) for seed, name in enumerate(names)}
    figure = draw([history(tmp_path, name, lines) for name, lines in runs.items()])
    by_title, shown = panels(figure), drawn(figure)
    assert [len(by_title[title]) for title in ("training loss", "validation R@1", "validation MRR")] == [1, 1, 1]
    for title in ("training loss", "validation R@1", "validation MRR"):
        assert labels(by_title[title][0]) == ["first", "second", "a-name…-place"]
    for name, lines in runs.items():
        assert shown[f"{name}: loss/image-text"][1] == [line["loss/image-text"] for line in lines]
        assert any(text.startswith(f"{name}: {len(lines)} steps") for text in texts(figure))
    assert "solid: image → text, dashed: text → image" in texts(figure)
    of_runs = [line for line in by_title["validation MRR"][0].lines if "/mrr" in str(line.get_label())]
    looks = {(str(line.get_color()), str(line.get_marker())) for line in of_runs[::4]}
    assert len(looks) == 3


def test_a_run_that_has_not_validated_yet_says_so(tmp_path: Path) -> None:
    by_title = panels(draw([history(tmp_path, "run", logged(5))]))
    assert labels(by_title["validation R@1"][0]) == labels(by_title["validation MRR"][0]) == ["not validated yet"]
    assert len(by_title["training loss"][0].lines) == 1


def test_a_run_that_logged_next_to_nothing_is_drawn(tmp_path: Path) -> None:
    figure = draw([history(tmp_path, "run", [{"step": 0, "loss": 2.5}])])
    assert drawn(figure) == {"run: loss": ([0], [2.5])}
    assert panels(figure).keys() == {"training loss", "validation R@1", "validation MRR"}
    assert texts(figure)[0] == "run: 1 step"


def test_noise_gets_a_running_mean_and_schedules_do_not(tmp_path: Path) -> None:
    shown = drawn(draw([history(tmp_path, "run", logged(120))]))
    means = {label.removesuffix(", mean") for label in shown if label.endswith(", mean")}
    assert means == {"run: loss/image-text", "run: gradient_norm", "run: items_per_second"}


def test_a_running_mean_is_that_of_the_points_around(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=173).tolist()
    mean = smoothed(Curve(list(range(173)), values))
    assert mean is not None
    assert mean.steps == list(range(173))
    # A fiftieth of the points to each side.
    expected = [fmean(values[max(at - 3, 0) : at + 4]) for at in range(173)]
    assert mean.values == pytest.approx(expected)
    assert smoothed(Curve([0, 1], [1.0, 2.0])) is None


def test_values_of_many_magnitudes_take_a_logarithmic_scale_that_is_named(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": 10.0 ** -(step % 4), "gradient_norm": 1.0 + step} for step in range(10)]
    figure = draw([history(tmp_path, "run", lines)])
    scales = {axes.get_title(loc="left"): axes.get_yscale() for axes in figure.axes}
    assert scales["training loss, log scale"] == "log"
    assert scales["gradient norm"] == "linear"
    # A loss of 0, of an edge without pairs, has no logarithm.
    with_zero = draw([history(tmp_path, "zero", [*lines, {"step": 10, "loss": 0.0}])])
    assert panels(with_zero)["training loss"][0].get_yscale() == "linear"


def test_one_validation_is_a_point_on_a_scale_that_says_little_of_small_differences(tmp_path: Path) -> None:
    line = {"step": 3, "loss": 1.0, "mrr": 0.42, "image-to-text/mrr": 0.421, "text-to-image/mrr": 0.419}
    axes = panels(draw([history(tmp_path, "run", [line])]))["validation MRR"][0]
    low, high = axes.get_ylim()
    assert high - low == pytest.approx(0.1)
    assert all(line.get_marker() not in ("", "None") for line in axes.lines)


def test_the_picture_has_its_size_and_opens(tmp_path: Path) -> None:
    figure = draw([history(tmp_path, "run", logged(12, TRIANGLE)), history(tmp_path, "$x_$ 実験", logged(12))])
    path = tmp_path / "new" / "curves.png"
    save(figure, path)
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.size == tuple(round(DPI * side) for side in figure.get_size_inches())
    assert [entry.name for entry in path.parent.iterdir()] == ["curves.png"]


def test_a_style_of_the_user_changes_nothing(tmp_path: Path) -> None:
    import matplotlib as mpl

    run = history(tmp_path, "run", logged(12))
    save(draw([run]), tmp_path / "plain.png")
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30, "lines.linewidth": 9}):
        save(draw([run]), tmp_path / "styled.png")
        assert mpl.rcParams["font.size"] == 30
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "styled.png").read_bytes()


def test_a_missing_matplotlib_is_told_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    run = history(tmp_path, "run", logged(2))
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FusemixError, match=r"drawing curves needs the package 'matplotlib': .*fusemix\[plots\]"):
        draw([run])
