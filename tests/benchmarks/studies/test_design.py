from __future__ import annotations

from dataclasses import replace

import pytest

from fusemix.benchmarks.studies.catalogue import STUDIES, chosen_studies
from fusemix.benchmarks.studies.design import (
    REFERENCES,
    Data,
    Study,
    changed,
    jobs_of,
    quickly,
    references_of,
    setting_of,
)
from fusemix.errors import FusemixError
from fusemix.training.settings import FuseSettings

from .small_study import FUSE, SMALL, WORLD


def test_a_level_changes_settings_by_their_dotted_names_and_no_others() -> None:
    settings = changed(FUSE, {"mixup": "none", "adapter.depth": 2, "adapter.dropout": 0.1})
    assert settings == replace(FUSE, mixup="none", adapter=replace(FUSE.adapter, depth=2, dropout=0.1))
    assert setting_of(settings, "adapter.depth") == 2
    assert setting_of(settings, "mixup") == "none"


def test_a_level_is_run_once_for_each_seed() -> None:
    jobs = jobs_of(SMALL, SMALL.levels[1])
    assert [job.method for job in jobs] == [replace(FUSE, mixup="none", seed=seed) for seed in (0, 1)]
    assert {(job.data, job.edge) for job in jobs} == {(Data(WORLD), ("first", "second"))}


def test_only_synthetic_worlds_have_references() -> None:
    assert list(references_of(SMALL)) == list(REFERENCES)
    assert references_of(replace(SMALL, data=Data("emoji"))) == {}


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_changes_one_factor(study: Study) -> None:
    names = [level.name for level in study.levels]
    assert len(set(names)) == len(names) >= 2
    assert 0 <= study.base < len(names)
    for level in study.levels:
        assert isinstance(changed(study.fuse, level.change), FuseSettings)
    settings = {key for level in study.levels for key in level.change}
    others = [level.data for level in study.levels if level.data is not None]
    assert len(settings) + bool(others) == 1
    if study.setting is not None:
        assert settings == {study.setting}
        # What stays without evidence is what a recipe has that says nothing.
        assert study.baseline.change == {}


def test_the_names_of_studies_are_distinct_and_chosen_by() -> None:
    names = [study.name for study in STUDIES]
    assert len(set(names)) == len(names)
    assert chosen_studies([]) == list(STUDIES)
    assert [study.name for study in chosen_studies(["depth", "mixup"])] == ["depth", "mixup"]
    with pytest.raises(FusemixError, match="unknown study 'detph': did you mean 'depth'"):
        chosen_studies(["detph"])


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_quick_trial_keeps_the_factor(study: Study) -> None:
    quick = quickly(study)
    assert quick.fuse == replace(study.fuse, steps=12, warmup_steps=2, validate_every=6)
    assert quick.seeds == 2
    assert [level.change for level in quick.levels] == [level.change for level in study.levels]
    data = [level.data or study.data for level in study.levels]
    fewer = [level.data or quick.data for level in quick.levels]
    for before, after in zip(data, fewer, strict=True):
        if isinstance(before.source, str):
            assert after == replace(before, share=before.share * 0.3)
        else:
            assert after == Data(replace(before.source, train=before.source.train // 20, val=200, test=300))
