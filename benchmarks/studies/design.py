"""What a study is: a question, a factor with its levels, and what all levels have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fusemix.benchmarks.synthetic import SyntheticSettings
from fusemix.training.settings import FuseSettings

Verdict = Literal["better", "worse", "open"]
CLAIMS: Mapping[Verdict, str] = {
    "better": "{level} did better than {baseline}",
    "worse": "{level} did worse than {baseline}",
    "open": "no difference to {baseline} was shown for {level}",
}
Reference = Literal["raw latents", "ridge map", "ceiling"]
REFERENCES: tuple[Reference, ...] = ("raw latents", "ridge map", "ceiling")


@dataclass(frozen=True)
class Data:
    """What adapters are trained and measured on."""

    source: str | SyntheticSettings
    """A packaged recipe, whose latents are taken, or a synthetic world."""
    share: float = 1.0
    """Share of the training items that is kept; validation and test items all are."""
    sides: tuple[int, ...] = (224,)
    """Of a recipe's pictures: the sides in pixels at which EfficientNet-Lite0 sees them, its latents concatenated."""

    @property
    def name(self) -> str:
        """Name of the recipe, or `synthetic`."""
        return self.source if isinstance(self.source, str) else "synthetic"


@dataclass(frozen=True)
class Level:
    """One value of a study's factor."""

    name: str
    """What tables and pictures call it."""
    phrase: str
    """What sentences call it: a noun with what belongs to it."""
    change: Mapping[str, Any] = field(default_factory=dict)
    """Settings of training that differ from the study's, by dotted names: {adapter.depth: 1}."""
    data: Data | None = None
    """What it trains on, where that is the factor."""


@dataclass(frozen=True)
class Study:
    """One factor, its levels, and what is held fixed."""

    name: str
    """Names its files."""
    question: str
    """What it answers."""
    levels: tuple[Level, ...]
    """Values of the factor, in the order in which they are shown."""
    data: Data
    """What the levels train on unless they say otherwise."""
    fuse: FuseSettings
    """Settings of training, of which a level changes some."""
    edge: tuple[str, str]
    """The two modalities between which retrieval is measured."""
    seeds: int
    """Runs of each level, with the seeds from 0."""
    fixed: str
    """What is the same for all levels, in words."""
    setting: str | None = None
    """The setting of recipes that it decides, if any, by its dotted name."""
    base: int = 0
    """Place of the baseline: the level that the others are compared with, and that stays where none is better."""
    claims: Mapping[Verdict, str] = field(default_factory=lambda: CLAIMS)
    """What is said of a level that did better or worse than the baseline, or neither."""

    @property
    def baseline(self) -> Level:
        """The level that the others are compared with."""
        return self.levels[self.base]


@dataclass(frozen=True)
class Job:
    """One thing to train, or a reference to compute, and to measure on the validation and test items."""

    data: Data
    method: FuseSettings | Reference
    """How adapters are trained, their seed included; or what is measured instead."""
    edge: tuple[str, str]


def jobs_of(study: Study, level: Level) -> list[Job]:
    """Return the jobs of a level, one for each seed."""
    settings = changed(study.fuse, level.change)
    return [Job(level.data or study.data, replace(settings, seed=seed), study.edge) for seed in range(study.seeds)]


def references_of(study: Study) -> dict[Reference, Job]:
    """Return what a study on a synthetic world is seen beside: on the baseline's data, raw latents and more."""
    data = study.baseline.data or study.data
    if isinstance(data.source, str):
        return {}
    return {reference: Job(data, reference, study.edge) for reference in REFERENCES}


def changed(settings: FuseSettings, change: Mapping[str, Any]) -> FuseSettings:
    """Return the settings with some replaced: `{"mixup": "none", "adapter.depth": 1}`."""
    for name, value in change.items():
        first, _, rest = name.partition(".")
        inner = replace(getattr(settings, first), **{rest: value}) if rest else value
        settings = replace(settings, **{first: inner})
    return settings


def setting_of(settings: FuseSettings, name: str) -> Any:
    """Return a setting by its dotted name."""
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def quickly(study: Study) -> Study:
    """Return the study with a few steps, few items and two seeds: it shows that all runs, and nothing else."""

    def fewer(data: Data) -> Data:
        if isinstance(data.source, str):
            return replace(data, share=data.share * 0.3)
        return Data(replace(data.source, train=data.source.train // 20, val=200, test=300))

    levels = tuple(replace(level, data=level.data and fewer(level.data)) for level in study.levels)
    fuse = replace(study.fuse, steps=12, warmup_steps=2, validate_every=6)
    return replace(study, levels=levels, data=fewer(study.data), fuse=fuse, seeds=min(study.seeds, 2))
