from __future__ import annotations

from dataclasses import replace

import pytest

from fusemix.benchmarks.bakeoff.page import bakeoff_table, markdown
from fusemix.benchmarks.bakeoff.results import Bakeoff
from fusemix.benchmarks.bakeoff.settings import METHODS

from .baked import DIRECTIONS, made_up


def row(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def score(result: Bakeoff, method: str, direction: str) -> str:
    found = result.cell(method, 0.1).metrics[direction]["R@1"]
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


@pytest.mark.parametrize("fractions", [(1.0,), (0.1, 0.3, 1.0), (0.01, 0.03, 0.1, 0.3, 1.0)])
@pytest.mark.parametrize("pair", [("image", "text"), ("motion-capture", "loudspeaker")])
def test_the_table_fits_a_terminal(fractions: tuple[float, ...], pair: tuple[str, str]) -> None:
    table = bakeoff_table(made_up(fractions, pair=pair))
    assert max(map(len, table.splitlines())) <= 80
    for fraction in fractions:
        assert f"{round(1340 * fraction):,} ({100 * fraction:g} %)" in table


def test_the_table_has_every_figure() -> None:
    result = made_up()
    table = bakeoff_table(result)
    first, second, seconds, chosen, notes = table.split("\n\n")[1:]
    for method in METHODS:
        assert score(result, method, DIRECTIONS[0]) in row(first, method)
        assert score(result, method, DIRECTIONS[1]) in row(second, method)
    assert "412 + 103" in row(seconds, "fusemix")
    assert "412 + 0.0" in row(seconds, "ridge")
    assert "800, 8" in row(chosen, "asif: neighbours, power")
    assert "0.0003" in row(chosen, "lit-style: learning rate")
    assert "tuned on validation over 3 configurations; mean of 3 seeds" in table
    assert "380 items, protocol generic" in table
    told = " ".join(notes.split())
    assert "image to text: 380 queries, 611 gallery rows, chance 0.27 %, ties at most 1.0 %" in told
    assert "text to image: 611 queries (7 without a right answer left out), 380 gallery rows" in told
    assert "R@1 is hit@1" in told


def test_counts_that_are_not_the_published_ones_are_a_warning() -> None:
    result = replace(made_up(), warnings=("380 items are not what it was published with",))
    for text in (bakeoff_table(result), markdown(result, "x.png", "fusemix", {})):
        assert "warning: 380 items are not what it was published with" in text


def test_what_differs_from_fusemix_is_marked() -> None:
    table = bakeoff_table(made_up())
    first, second = table.split("\n\n")[1:3]
    assert row(first, "ridge").count("*") == 3
    assert "*" not in row(second, "ridge")
    assert "*" not in row(first, "cca")
    assert "Holm over 42 comparisons" in " ".join(table.split())


def test_without_fusemix_no_mark_is_explained() -> None:
    shown = bakeoff_table(made_up(methods=("ridge", "fusemix")))
    assert "Holm over 6 comparisons" in " ".join(shown.split())
    assert "Holm" not in bakeoff_table(made_up(methods=("fusemix",)))


def test_the_page_has_the_tables_the_picture_the_methods_and_the_command() -> None:
    result = made_up()
    page = markdown(result, "emoji.png", "fusemix bakeoff emoji", {"cores": 2, "gpu": None, "torch": "2.13"})
    assert page.startswith("# Ways to align frozen latents, on emoji\n")
    assert "](emoji.png)\n" in page
    assert "Machine: cores 2, torch 2.13." in page
    assert "```sh\nfusemix bakeoff emoji\n```" in page
    for method in METHODS:
        assert f"- **{method}**: what {method} is" in page
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("| ")]
    assert len(tables) == 4
    for table in tables:
        assert len(table) == 2 + len(METHODS)
        assert {line.count("|") for line in table} == {5}
    assert score(result, "cca", DIRECTIONS[0]) in row("\n".join(tables[0]), "| cca")
    # A mark is a star, not emphasis.
    assert r"\*" in row("\n".join(tables[0]), "| ridge")


def test_names_of_modalities_do_not_break_the_page() -> None:
    page = markdown(made_up(pair=("left_hand", "right_hand")), "x.png", "fusemix", {})
    assert r"| left\_hand to right\_hand, R@1 % by training items |" in page
