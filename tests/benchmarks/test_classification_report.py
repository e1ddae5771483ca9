from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fusemix.benchmarks.classification import class_ranks, summarise
from fusemix.benchmarks.classification_report import classification_report

from .labelled_world import labelled

FOLDS = [f"fold{1 + row % 10}" for row in range(200)]


@pytest.mark.parametrize("splits", [None, FOLDS], ids=["one split", "folds"])
def test_a_classifier_that_is_always_right_fits_80_columns(splits: list[str] | None) -> None:
    labels = [row % 12 for row in range(200)]
    rows = labelled(np.ones((200, 2)), labels, classes=13, splits=splits, items=[row // 2 for row in range(200)])
    name = "a_data_set_with_a_long_name"
    rows = replace(rows, dataset=replace(rows.dataset, name=name), unlabelled=1234)
    notes = ["fold fold10: logistic regression with C = 1000 did not converge in 10000 iterations, its figures are"]
    settings = {"prompts": "imagenet/clip", "templates": 80}
    ranks = class_ranks(torch.eye(13)[labels], rows.labels)
    result = summarise("zero-shot", rows, ranks, settings=settings, notes=notes, draws=5)
    lines = classification_report(result, f"image embeddings of the run {name}_fused_again").text().splitlines()
    assert max(map(len, lines)) <= 80
    where = "10 folds" if splits else "test split"
    assert lines[0] == f"Zero-shot classification on {name}, {where}: 200 rows of"
    assert lines[1] == "  100 items, 13 classes"
    assert "prompts imagenet/clip: 80 templates for each name" in lines
    assert "acc1                   100.0 [100.0, 100.0]     7.7" in lines
    assert "always the commonest class: acc1 8.5" in lines
    assert ("mean of folds  100.0  100.0                  100.0" in lines) == bool(splits)
    assert any(line.startswith("note: 1 of 13 classes have no row ('m')") for line in lines)
