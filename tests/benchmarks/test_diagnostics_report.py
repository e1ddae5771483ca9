from __future__ import annotations

from dataclasses import replace

from fusemix.benchmarks.diagnostics import diagnose
from fusemix.benchmarks.diagnostics_report import diagnostics_report

from .small_world import identity_space, small_world


def test_diagnostics_fit_80_columns() -> None:
    figures = diagnose(identity_space(), small_world(), neighbours=3)
    long = "a_modality_with_a_name_longer_than_any_table_would_like_it"
    named = replace(figures, modalities=tuple(replace(one, modality=long) for one in figures.modalities))
    [pair] = figures.pairs
    hubness = (replace(pair.hubness[0], direction=f"{long} to text"), pair.hubness[1])
    text = diagnostics_report(replace(named, pairs=(replace(pair, a=long, hubness=hubness),)), "run").text()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("…") == 4


def test_without_a_pair_only_what_is_shown_is_explained() -> None:
    report = diagnostics_report(replace(diagnose(identity_space(), small_world(), neighbours=3), pairs=()), "run")
    assert [line.partition(":")[0] for line in report.foot] == ["effective rank", "uniformity"]
