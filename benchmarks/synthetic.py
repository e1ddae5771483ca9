"""A world whose hidden factors are known, seen through random encoders: what does a method recover of them?

An item has shared factors.  Each encoder sees them blurred, mixes them with private factors of its own through a
fixed random network of sines, and adds noise; the latents of two encoders have nothing in common but the shared
factors.  Sines, because they let one number, the frequency, decide how little of the factors a linear map finds.

Items are drawn in blocks, each from the seed and its own number.  So any part of the world can be made alone, in any
pieces, and a larger training split is a smaller one with further items, beside the same validation and test items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from fusemix.errors import FusemixError
from fusemix.latents.paired import ModalityLatents, PairedLatents
from fusemix.latents.provenance import DatasetStamp, digest
from fusemix.randomness import derive_seed, generator

MODALITIES = ("first", "second", "third")
BLOCK = 8192
PENALTIES = tuple(10.0**exponent for exponent in range(-2, 5))
FITTED_ITEMS = 4096


@dataclass(frozen=True)
class SyntheticSettings:
    """How many items the world has, and how hard it is to see through its encoders."""

    train: int = 10_000
    """Items to train on."""
    val: int = 1000
    """Items to choose by."""
    test: int = 2000
    """Items to measure on."""
    dims: tuple[int, ...] = (128, 96)
    """Dimensions of the latents of each modality: `first`, `second` and, if there is one more, `third`."""
    shared: int = 8
    """Factors that all encoders see."""
    private: int = 4
    """Factors of each encoder's own."""
    blur: float = 0.2
    """Standard deviation of what each encoder adds to each shared factor, which has 1: an encoder's best estimate of
    a factor has an R2 of 1 / (1 + blur^2)."""
    frequency: float = 1.75
    """How fast the encoders' sines turn with the factors; at 0.5 a linear map finds nearly all."""
    noise: float = 0.05
    """Standard deviation of the noise on each number of a latent, whose own is about 1."""
    missing: float = 0.0
    """Probability that a training item lacks a modality; one it always has.  Other items have all."""
    seed: int = 0
    """Decides encoders and items."""

    def __post_init__(self) -> None:
        wide = min(self.dims, default=0) >= self.shared + self.private
        rules = {
            "train": (self.train >= 1, "at least 1"),
            "val": (self.val >= 1, "at least 1"),
            "test": (self.test >= 1, "at least 1"),
            "dims": (2 <= len(self.dims) <= 3 and wide, "two or three, none below shared + private"),
            "shared": (self.shared >= 1, "at least 1"),
            "private": (self.private >= 0, "at least 0"),
            "blur": (self.blur >= 0, "at least 0"),
            "frequency": (self.frequency > 0, "above 0"),
            "noise": (self.noise >= 0, "at least 0"),
            "missing": (0 <= self.missing < 1, "in [0, 1)"),
        }
        for name, (valid, bounds) in rules.items():
            if not valid:
                raise FusemixError(f"synthetic.{name} is {getattr(self, name)}: it must be {bounds}")

    @property
    def modalities(self) -> dict[str, int]:
        """Modality -> dimension of its latents."""
        return dict(zip(MODALITIES, self.dims, strict=False))

    @property
    def items(self) -> int:
        """Items of all splits: those to test come first, then those to validate, then those to train."""
        return self.test + self.val + self.train


@dataclass(frozen=True)
class SyntheticItems:
    """Some items of the world and what is behind them.

    Attributes:
        shared: (N, shared) factors that all encoders see, of variance 1.
        seen: modality -> (N, shared) the shared factors, blurred as its encoder sees them.
        private: modality -> (N, private) its encoder's own factors, of variance 1.
        latents: modality -> (N, D) float32, whether or not the item lacks the modality.
        present: modality -> (N,) bool, whether a training item has it.
    """

    shared: Tensor
    seen: Mapping[str, Tensor]
    private: Mapping[str, Tensor]
    latents: Mapping[str, Tensor]
    present: Mapping[str, Tensor]


class SyntheticWorld:
    """Encoders, and the items that they see.

    Args:
        settings: sizes, difficulty, seed.
    """

    def __init__(self, settings: SyntheticSettings) -> None:
        self.settings = settings
        self._encoders = {name: _Encoder(name, dim, settings) for name, dim in settings.modalities.items()}

    def items(self, start: int, stop: int) -> SyntheticItems:
        """Return the items from `start` to before `stop`, the same in whatever pieces they are asked for."""
        if not 0 <= start < stop:
            raise FusemixError(f"no items from {start} to {stop}")
        blocks = [self._block(number) for number in range(start // BLOCK, (stop - 1) // BLOCK + 1)]
        inside = slice(start % BLOCK, start % BLOCK + stop - start)

        def joined(parts: list[Tensor]) -> Tensor:
            return torch.cat(parts)[inside]

        def by_modality(kind: str) -> dict[str, Tensor]:
            return {name: joined([getattr(block, kind)[name] for block in blocks]) for name in self._encoders}

        shared = joined([block.shared for block in blocks])
        return SyntheticItems(shared, *map(by_modality, ("seen", "private", "latents", "present")))

    def split(self, name: str, most: int | None = None) -> SyntheticItems:
        """Return the first items of a split, all of them unless told how many at most."""
        settings = self.settings
        starts = {"test": 0, "val": settings.test, "train": settings.test + settings.val}
        count = {"test": settings.test, "val": settings.val, "train": settings.train}[name]
        return self.items(starts[name], starts[name] + min(count, most or count))

    def presence(self, number: int) -> Tensor:
        """Return which modalities each item of a block has where items can lack some, (BLOCK, modalities) bool.

        What is missing with a small probability is missing with a larger one too.
        """
        rng = generator(self.settings.seed, "synthetic presence", number)
        kept = torch.randint(len(self._encoders), (BLOCK, 1), generator=rng)
        drawn = torch.rand(BLOCK, len(self._encoders), generator=rng) >= self.settings.missing
        return drawn.scatter(1, kept, value=True)

    def _block(self, number: int) -> SyntheticItems:
        settings = self.settings
        rng = generator(settings.seed, "synthetic items", number)
        shared = torch.randn(BLOCK, settings.shared, generator=rng)
        seen, private, latents = {}, {}, {}
        for name, encoder in self._encoders.items():
            # A generator for each modality, so that a further one leaves the others as they are.
            rng = generator(settings.seed, "synthetic items", number, name)
            seen[name] = shared + settings.blur * torch.randn(shared.shape, generator=rng)
            private[name] = torch.randn(BLOCK, settings.private, generator=rng)
            clean = encoder(seen[name], private[name])
            latents[name] = clean + settings.noise * torch.randn(clean.shape, generator=rng)
        present = dict(zip(self._encoders, self.presence(number).unbind(1), strict=True))
        return SyntheticItems(shared, seen, private, latents, present)


class _Encoder:
    def __init__(self, name: str, dim: int, settings: SyntheticSettings) -> None:
        rng = generator(settings.seed, "synthetic encoder", name, dim)
        inputs = settings.shared + settings.private
        self.blur = settings.blur
        # Rows of length 1 on average: each sine turns by `frequency` radians for one standard deviation.
        self.inward = settings.frequency * torch.randn(inputs, dim, generator=rng) / math.sqrt(inputs)
        self.phase = 2 * math.pi * torch.rand(dim, generator=rng)
        self.outward, _ = torch.linalg.qr(torch.randn(dim, dim, generator=rng))

    def __call__(self, seen: Tensor, private: Tensor) -> Tensor:
        """Return (N, D) latents without noise."""
        hidden = torch.cat([seen / math.sqrt(1 + self.blur**2), private], dim=1) @ self.inward
        latents: Tensor = math.sqrt(2) * torch.sin(hidden + self.phase) @ self.outward
        return latents


def synthetic_latents(settings: SyntheticSettings) -> PairedLatents:
    """Return the latents of a world in float16, made block by block: nothing else of that size is ever held."""
    world = SyntheticWorld(settings)
    complete = settings.test + settings.val
    has = torch.cat([world.presence(number) for number in range(math.ceil(settings.items / BLOCK))])[: settings.items]
    has[:complete] = True
    modalities = {}
    for column, (name, dim) in enumerate(settings.modalities.items()):
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), has[:, column].cumsum(0)])
        modalities[name] = torch.empty(int(offsets[-1]), dim, dtype=torch.float16), offsets
    for block, inside in _blocks(world):
        for column, (name, (values, offsets)) in enumerate(modalities.items()):
            chosen = block.latents[name][: inside.stop - inside.start][has[inside, column]]
            values[int(offsets[inside.start]) : int(offsets[inside.stop])] = chosen.half()
    ids = np.array([f"{position:09}" for position in range(settings.items)], object)
    splits = np.repeat(np.array(["test", "val", "train"], object), [settings.test, settings.val, settings.train])
    stamp = DatasetStamp("synthetic", digest([f"{key}={value}" for key, value in asdict(settings).items()]))
    joined = {}
    for column, (name, (values, offsets)) in enumerate(modalities.items()):
        sources = ids[has[:, column].numpy()]
        # Content that no other row has, of this modality or another.
        content = derive_seed("synthetic content", name) ^ torch.from_numpy(sources.astype(np.int64))
        joined[name] = ModalityLatents(values, content, sources.tolist(), torch.arange(len(values)), offsets)
    return PairedLatents(ids, splits, joined, stamp)


def _blocks(world: SyntheticWorld) -> Iterator[tuple[SyntheticItems, slice]]:
    for start in range(0, world.settings.items, BLOCK):
        stop = min(start + BLOCK, world.settings.items)
        yield world.items(start, stop), slice(start, stop)


@dataclass(frozen=True)
class Recovered:
    """How well a ridge map from what a modality gives reads factors of test items: mean R2 over the factors."""

    shared: float
    private: float


def recovery(world: SyntheticWorld, encode: Callable[[str, Tensor], Tensor] | None = None) -> dict[str, Recovered]:
    """Read the factors linearly from embeddings, or from the latents themselves.

    The map is fitted on the first training items, its penalty chosen on the validation items.

    Args:
        world: the items.
        encode: modality and (N, D) latents -> (N, d) embeddings; the latents are read if left out.
    """
    parts = [world.split("train", FITTED_ITEMS), world.split("val"), world.split("test")]
    found = {}
    for name in world.settings.modalities:
        # In float16 as they are stored, so that latents are read as an adapter gets them.
        given = [part.latents[name].half().float() for part in parts]
        features = [encode(name, latents) if encode is not None else latents for latents in given]
        found[name] = Recovered(
            linear_r2(features, [part.shared for part in parts]),
            linear_r2(features, [part.private[name] for part in parts]) if world.settings.private else 0.0,
        )
    return found


def linear_r2(features: list[Tensor], targets: list[Tensor]) -> float:
    """Return the R2 on test items of the ridge map with the best penalty, the mean over the targets' columns.

    Args:
        features: (N, d) of the items to fit, to choose the penalty by, and to test.
        targets: (N, k) of the same.
    """
    mean, std = features[0].double().mean(0), features[0].double().std(0).clamp_min(1e-12)
    x = [(part.double() - mean) / std for part in features]
    centre = targets[0].double().mean(0)
    y = [part.double() - centre for part in targets]
    gram, cross = x[0].T @ x[0], x[0].T @ y[0]

    def r2(weights: Tensor, part: int) -> float:
        left = (y[part] - x[part] @ weights).square().sum(0)
        return float((1 - left / (y[part] - y[part].mean(0)).square().sum(0)).mean())

    maps = [torch.linalg.solve(gram + penalty * torch.eye(len(gram)).double(), cross) for penalty in PENALTIES]
    return r2(max(maps, key=lambda weights: r2(weights, 1)), 2)
