"""The studies: each changes one factor of training, on emoji or on a synthetic world.

Settings are spelled out here, so that a recipe which follows a finding does not change what was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fusemix.adapters.settings import AdapterSettings
from fusemix.benchmarks.synthetic import SyntheticSettings
from fusemix.edge import Edge
from fusemix.errors import FusemixError, nearest
from fusemix.training.settings import FuseSettings

from .design import Data, Level, Study, Verdict

EMOJI = Data("emoji")
PICTURE_TEXT = ("image", "text")
ON_EMOJI = FuseSettings(
    steps=150,
    batch_size=512,
    mixup="halves",
    mixup_alpha=1.0,
    mixup_lambda="batch",
    joint_dim=1024,
    adapter=AdapterSettings(depth=0, expansion=2),
    learning_rate=1e-3,
    warmup_steps=20,
    validate_every=10,
    patience=6,
)
NARROWED = replace(
    ON_EMOJI,
    steps=200,
    adapter=AdapterSettings(depth=1, expansion=1, dropout=0.8, noise=0.5, max_width=1024),
    learning_rate=5e-4,
    patience=8,
)
ON_SYNTHETIC = FuseSettings(
    steps=300,
    batch_size=2048,
    joint_dim=64,
    adapter=AdapterSettings(depth=1, expansion=4, dropout=0.0),
    learning_rate=2e-3,
    warmup_steps=20,
    validate_every=20,
    patience=15,
)
MIXUP = (Level("with mixup", "mixup"), Level("without mixup", "no mixup", {"mixup": "none"}))
MIXUP_CLAIMS: Mapping[Verdict, str] = {
    "better": "leaving mixup out helped",
    "worse": "leaving mixup out hurt",
    "open": "leaving mixup out was shown neither to help nor to hurt",
}
SYNTHETIC_EDGE = ("first", "second")
FIXED_ON_EMOJI = "150 steps of 512 pairs, the checkpoint chosen by validation MRR"
FIXED_ON_SYNTHETIC = (
    "8 shared factors, and 4 private ones of each of two encoders, whose latents have 128 and 96 numbers; 300 steps"
    " of 2,048 pairs, one block, the checkpoint chosen by validation MRR"
)


def _world(items: int, missing: float = 0.0) -> Data:
    return Data(SyntheticSettings(train=items, missing=missing))


STUDIES: tuple[Study, ...] = (
    Study(
        "mixup",
        "Does mixup help?",
        MIXUP,
        EMOJI,
        ON_EMOJI,
        PICTURE_TEXT,
        seeds=5,
        fixed=f"{FIXED_ON_EMOJI}, adapters without a block",
        setting="mixup",
        claims=MIXUP_CLAIMS,
    ),
    Study(
        "lambda",
        "One lambda for a batch, or one for each pair?",
        (
            Level("a batch", "one lambda for the batch"),
            Level("each pair", "one lambda for each pair", {"mixup_lambda": "pair"}),
        ),
        EMOJI,
        ON_EMOJI,
        PICTURE_TEXT,
        seeds=5,
        fixed=f"{FIXED_ON_EMOJI}, adapters without a block, partners from the other half",
        setting="mixup_lambda",
    ),
    Study(
        "partner",
        "Whom to mix with: the other half of twice as many items, or another item of the batch?",
        (
            Level("other half", "partners from the other half"),
            Level("shift", "partners from a shift of the batch", {"mixup": "shift"}),
        ),
        EMOJI,
        ON_EMOJI,
        PICTURE_TEXT,
        seeds=5,
        fixed=f"{FIXED_ON_EMOJI}, adapters without a block, one lambda for the batch",
        setting="mixup",
    ),
    Study(
        "batch",
        "How large should batches be?",
        (
            Level("128", "batches of 128 pairs", {"batch_size": 128}),
            Level("256", "batches of 256 pairs", {"batch_size": 256}),
            Level("512", "batches of 512 pairs"),
            Level("670", "batches of 670 pairs", {"batch_size": 670}),
        ),
        EMOJI,
        ON_EMOJI,
        PICTURE_TEXT,
        seeds=5,
        fixed="150 steps, so that larger batches also see more pairs; adapters without a block; 670 pairs and their"
        " partners are all training items",
        setting="batch_size",
        base=2,
    ),
    Study(
        "depth",
        "How many blocks should adapters have?",
        (
            Level("no block", "adapters without a block"),
            Level("one block", "adapters with one block", {"adapter.depth": 1}),
            Level("two blocks", "adapters with two blocks", {"adapter.depth": 2}),
        ),
        EMOJI,
        replace(ON_EMOJI, adapter=AdapterSettings(depth=0, expansion=1)),
        PICTURE_TEXT,
        seeds=3,
        fixed=f"{FIXED_ON_EMOJI}, blocks as wide as the latents",
        setting="adapter.depth",
    ),
    Study(
        "sides",
        "At how many sides should the encoder see a picture?",
        (
            Level("224", "pictures of 224 pixels"),
            Level("128, 320", "pictures of 128 and 320 pixels", data=replace(EMOJI, sides=(128, 320))),
            Level("128, 224, 320", "pictures of 128, 224 and 320 pixels", data=replace(EMOJI, sides=(128, 224, 320))),
        ),
        EMOJI,
        NARROWED,
        PICTURE_TEXT,
        seeds=3,
        fixed="200 steps of 512 pairs, the checkpoint chosen by validation MRR; latents of several sides are"
        " concatenated; a linear map narrows the pictures' to 1,024 numbers before one block of that width",
    ),
    Study(
        "share",
        "How much data does it take?",
        (
            Level("10%", "a tenth of the training items", data=replace(EMOJI, share=0.1)),
            Level("25%", "a quarter of them", data=replace(EMOJI, share=0.25)),
            Level("50%", "half of them", data=replace(EMOJI, share=0.5)),
            Level("100%", "all of them"),
        ),
        EMOJI,
        ON_EMOJI,
        PICTURE_TEXT,
        seeds=5,
        fixed="150 steps, adapters without a block, batches of 512 pairs or of half the items where there are fewer;"
        " each share holds the smaller ones",
        base=3,
    ),
    Study(
        "third-modality",
        "Does speech as a third modality help or hurt the picture-text edge?",
        (
            Level("picture-text edge", "the picture-text edge alone", {"edges": (Edge("image", "text"),)}),
            Level("triangle with speech", "the triangle with speech"),
        ),
        Data("emoji-spoken"),
        ON_EMOJI,
        PICTURE_TEXT,
        seeds=5,
        fixed=f"{FIXED_ON_EMOJI} of the edges that are trained, adapters without a block",
        claims={
            "better": "speech as a third modality helped the picture-text edge",
            "worse": "speech as a third modality hurt the picture-text edge",
            "open": "speech as a third modality was shown neither to help nor to hurt the picture-text edge",
        },
    ),
    Study(
        "synthetic-items",
        "In a world with known factors, how much do more items recover?",
        (
            Level("10,000", "10,000 training items"),
            Level("100,000", "100,000 training items", data=_world(100_000)),
        ),
        _world(10_000),
        ON_SYNTHETIC,
        SYNTHETIC_EDGE,
        seeds=3,
        fixed=f"{FIXED_ON_SYNTHETIC}, with mixup",
    ),
    *(
        Study(
            name,
            f"In a world with known factors and {items:,} training items, does mixup help?",
            MIXUP,
            _world(items),
            ON_SYNTHETIC,
            SYNTHETIC_EDGE,
            seeds=3,
            fixed=FIXED_ON_SYNTHETIC,
            claims=MIXUP_CLAIMS,
        )
        for name, items in (("synthetic-mixup-10k", 10_000), ("synthetic-mixup-100k", 100_000))
    ),
    Study(
        "synthetic-missing",
        "What does it cost that training items lack a modality?",
        (
            Level("none", "complete ones"),
            Level("25%", "training items that lack each modality in 25% of cases", data=_world(10_000, 0.25)),
            Level("50%", "those that lack each in 50%", data=_world(10_000, 0.5)),
        ),
        _world(10_000),
        ON_SYNTHETIC,
        SYNTHETIC_EDGE,
        seeds=3,
        fixed=f"{FIXED_ON_SYNTHETIC}, with mixup; 10,000 training items, none of which lacks both, and test items"
        " that lack none",
    ),
)


def chosen_studies(names: Sequence[str]) -> list[Study]:
    """Return the studies of these names, all if there are none.

    Raises:
        FusemixError: for an unknown name.
    """
    known = {study.name: study for study in STUDIES}
    for name in names:
        if name not in known:
            raise FusemixError(f"unknown study {name!r}: {nearest(name, known)}")
    return [known[name] for name in names] if names else list(STUDIES)
