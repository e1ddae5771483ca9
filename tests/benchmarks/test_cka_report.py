from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fusemix.benchmarks.cka import CkaMatrix
from fusemix.benchmarks.cka_report import cka_report


def matrix(count: int, name: str = "encoder") -> CkaMatrix:
    values = np.random.default_rng(0).uniform(-0.03, 0.9, (count, count))
    values = np.triu(values, 1) + np.triu(values, 1).T + np.eye(count)
    modalities = tuple("image" if place % 2 else "text" for place in range(count))
    names = tuple(f"{modality}/{name}{place}" for place, modality in enumerate(modalities))
    items = tuple(tuple(1000 + i * j for j in range(count)) for i in range(count))
    rows = tuple(tuple(row) for row in values.tolist())
    return CkaMatrix("small", "f00d", "train", names, modalities, items, rows, rows)


@pytest.mark.parametrize("name", ["encoder", "an_encoder_with_a_name_longer_than_any_table_would_like_it"])
@pytest.mark.parametrize("count", [2, 9, 23])
def test_each_value_of_a_matrix_is_shown_once(name: str, count: int) -> None:
    shown = matrix(count, name)
    report = cka_report(shown)
    assert max(map(len, report.text().splitlines())) <= 80
    found = {}
    for table in report.tables:
        columns = [int(cell) - 1 for cell in table[0][1:]]
        for label, *cells in table[1:]:
            for column, cell in zip(columns, cells, strict=True):
                if cell:
                    assert (int(label.split()[0]) - 1, column) not in found
                    found[int(label.split()[0]) - 1, column] = cell
    assert found == {
        (row, column): f"{shown.values[row][column]:.2f}" for row in range(count) for column in range(row + 1)
    }


def test_the_pair_that_is_most_alike_is_named() -> None:
    shown = matrix(5)
    best = max(shown.values[i][j] for i in range(5) for j in range(i) if (i - j) % 2)
    assert cka_report(shown).foot[0].startswith(f"Most alike of different modalities, {best:.2f}: ")


def test_a_matrix_of_one_modality_names_no_pair() -> None:
    text = cka_report(replace(matrix(3), modalities=("image",) * 3)).text()
    assert "Most alike" not in text
    assert "train split: 1,000 to 1,002 items in common" in text
