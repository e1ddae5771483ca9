from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fusemix.batch import one_pair_a_row
from fusemix.errors import FusemixError
from fusemix.latents.file import LatentsFile
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import DatasetStamp
from fusemix.training.feeding import Feed, Feeder
from fusemix.training.settings import FuseSettings
from tests.fusemix.synthetic import encoder

CPU = torch.device("cpu")
DIMS = {"audio": 3, "image": 5, "text": 4}
HALVES = FuseSettings(batch_size=24, seed=5)
Place = Literal["auto", "device", "host", "disk"]


def write(
    folder: Path, name: str, items: int, modalities: Sequence[str], missing: float, seed: int
) -> dict[str, Path | str | Sequence[Path | str]]:
    """Store items with up to three rows a modality, in a scattered order; no two contents are equal."""
    rng = np.random.default_rng(seed)
    names = [f"{index:03d}" for index in range(items)]
    files: dict[str, Path | str | Sequence[Path | str]] = {}
    for modality in modalities:
        counts = rng.integers(1, 4, items) * (rng.random(items) >= missing)
        rows = rng.permutation(np.repeat(np.arange(items), counts))
        LatentsFile.from_arrays(
            folder / f"{name}-{modality}.h5",
            [names[row] for row in rows],
            rng.normal(size=(len(rows), DIMS[modality])),
            encoder(modality, DIMS[modality]),
            sources=[f"{name} {modality} {row}" for row in range(len(rows))],
            dataset=DatasetStamp(name),
        )
        files[modality] = folder / f"{name}-{modality}.h5"
    return files


@dataclass(frozen=True)
class Stored:
    """Files of two datasets in which items lack modalities, and of three in which they have all."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Stored:
        write(folder, "coco", 70, ("image", "text"), 0.3, 0)
        write(folder, "clotho", 60, ("audio", "text"), 0.3, 1)
        write(folder, "vg", 96, ("image", "text"), 0.0, 2)
        write(folder, "fsd", 24, ("audio", "text"), 0.0, 3)
        write(folder, "sbu", 96, ("image", "text"), 0.0, 4)
        return cls(folder)

    def load(self, *names: str, mapped: bool = False) -> list[PairedLatents]:
        files = {name: sorted(self.folder.glob(f"{name}-*.h5")) for name in names}
        return [
            PairedLatents.load({path.stem.split("-")[1]: path for path in files[name]}, mapped=mapped)
            for name in names
        ]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return Stored.make(tmp_path_factory.mktemp("stored"))


SPARSE, COMPLETE = ("coco", "clotho"), ("vg", "fsd")


def kept(steps: Iterable[Feed]) -> list[Feed]:
    """Return what steps see, each in memory of its own."""
    return [
        replace(feed, batch=replace(feed.batch, values={name: v.clone() for name, v in feed.batch.values.items()}))
        for feed in steps
    ]


def feeds(train: Sequence[PairedLatents], settings: FuseSettings, start: int = 0, stop: int = 8) -> list[Feed]:
    return kept(Feeder(train, settings, CPU).steps(start, stop))


def assert_equal(found: Sequence[Feed], right: Sequence[Feed]) -> None:
    assert len(found) == len(right) > 0
    for mine, other in zip(found, right, strict=True):
        assert mine.lam == other.lam
        assert torch.equal(mine.batch.parents, other.batch.parents)
        assert mine.batch.values.keys() == other.batch.values.keys()
        for name in mine.batch.values:
            assert torch.equal(mine.batch.values[name], other.batch.values[name])
            assert torch.equal(mine.batch.present[name], other.batch.present[name])
            assert torch.equal(mine.batch.content[name], other.batch.content[name])


def check_by_hand(train: Sequence[PairedLatents], feed: Feed, *, one_lambda: bool) -> None:
    """Look up each parent's latent by its content and mix it in float64."""
    items = [(latents, position) for latents in train for position in range(len(latents))]
    modalities = sorted({name for latents in train for name in latents.modalities})
    batch = feed.batch
    lambdas: list[float] = []
    assert sorted(batch.values) == modalities
    for pair in range(len(batch)):
        parents = [items[position] for position in batch.parents[pair].tolist()]
        found_lam = set()
        for name in modalities:
            owned = [rows_of(latents, position, name) for latents, position in parents]
            assert bool(batch.present[name][pair]) == all(owned) == any(owned)
            value = batch.values[name][pair].double().numpy()
            if not all(owned):
                assert not value.any()
                continue
            mine = [rows[int(content)] for rows, content in zip(owned, batch.content[name][pair], strict=True)]
            lam = feed.lam
            if not one_lambda and len(batch.content[name][pair].unique()) == 2:
                lam = float((value - mine[1]) @ (mine[0] - mine[1]) / ((mine[0] - mine[1]) ** 2).sum())
                found_lam.add(round(lam, 4))
            np.testing.assert_allclose(value, lam * mine[0] + (1 - lam) * mine[-1], rtol=1e-5, atol=1e-5)
        assert len(found_lam) <= 1
        lambdas += found_lam
    if not one_lambda:
        assert len(set(lambdas)) > len(batch) // 2
        assert all(-1e-3 <= lam <= 1.001 for lam in lambdas)


def rows_of(latents: PairedLatents, position: int, name: str) -> dict[int, npt.NDArray[np.float64]]:
    """Return the latents of an item by their content."""
    if name not in latents.modalities:
        return {}
    modality = latents[name]
    rows = modality.rows[modality.offsets[position] : modality.offsets[position + 1]].tolist()
    return {int(modality.content[row]): modality.values[row].double().numpy() for row in rows}


@pytest.mark.parametrize("mixup", ["halves", "shift", "none"])
@pytest.mark.parametrize("captions", ["one", "all"])
@pytest.mark.parametrize("per", ["batch", "pair"])
def test_a_batch_holds_the_mixed_latents_of_its_parents(
    stored: Stored,
    mixup: Literal["halves", "shift", "none"],
    captions: Literal["one", "all"],
    per: Literal["batch", "pair"],
) -> None:
    settings = replace(HALVES, mixup=mixup, captions=captions, mixup_lambda=per)
    given = stored.load(*SPARSE)
    train = [one_pair_a_row(latents) for latents in given] if captions == "all" else given
    for feed in feeds(given, settings, stop=4):
        assert len(feed.batch) == settings.batch_size
        assert feed.batch.parents.shape[1] == (1 if mixup == "none" else 2)
        assert all(value.dtype == torch.float32 for value in feed.batch.values.values())
        assert (feed.lam == 1) == (mixup == "none")
        check_by_hand(train, feed, one_lambda=mixup == "none" or per == "batch")


def test_the_lambda_that_is_told_is_the_mean_of_the_pairs(stored: Stored) -> None:
    complete = stored.load("vg")
    for feed in feeds(complete, replace(HALVES, mixup_lambda="pair"), stop=3):
        found = []
        for pair in range(len(feed.batch)):
            a, b = (
                rows_of(complete[0], int(parent), "image")[int(content)]
                for parent, content in zip(feed.batch.parents[pair], feed.batch.content["image"][pair], strict=True)
            )
            found.append((feed.batch.values["image"][pair].double().numpy() - b) @ (a - b) / ((a - b) ** 2).sum())
        assert feed.lam == pytest.approx(float(np.mean(found)), abs=1e-4)


@pytest.mark.parametrize("mixup", ["halves", "shift"])
def test_mixup_keeps_as_many_of_a_modality_as_its_items_have(
    stored: Stored, mixup: Literal["halves", "shift"]
) -> None:
    train = stored.load("coco")
    for feed in feeds(train, replace(HALVES, mixup=mixup, batch_size=30), stop=4):
        seen = Counter(feed.batch.parents.flatten().tolist())
        for name in ("image", "text"):
            has = train[0][name].counts.bool()
            expected = sum(count for item, count in seen.items() if has[item]) / 2
            assert int(feed.batch.present[name].sum()) == expected > 15


@pytest.mark.parametrize("mixup", ["halves", "shift"])
def test_no_item_is_a_parent_more_often_than_the_way_of_mixing_says(
    stored: Stored, mixup: Literal["halves", "shift"]
) -> None:
    for feed in feeds(stored.load(*SPARSE), replace(HALVES, mixup=mixup)):
        first, second = (parents.tolist() for parents in feed.batch.parents.T)
        assert len(set(first)) == len(set(second)) == HALVES.batch_size
        if mixup == "shift":
            assert set(first) == set(second)
        else:
            assert all(i == j for i, j in zip(first, second, strict=True) if i in second)


def test_each_step_takes_its_share_of_each_dataset_and_an_epoch_shows_each_item_once(stored: Stored) -> None:
    settings = FuseSettings(batch_size=32, mixup="none", dataset_weights={"vg": 3, "fsd": 1})
    steps = [feed.batch.items for feed in feeds(stored.load(*COMPLETE), settings, stop=12)]
    assert all(int((items < 96).sum()) == 24 for items in steps)
    large, small = ([items[(items < 96) == first] for items in steps] for first in (True, False))
    epochs = [torch.cat(large[start : start + 4]) for start in (0, 4, 8)]
    assert all(sorted(epoch.tolist()) == list(range(96)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 3
    epochs = [torch.cat(small[start : start + 3]) for start in (0, 3, 6, 9)]
    assert all(sorted(epoch.tolist()) == list(range(96, 120)) for epoch in epochs)


def test_items_of_different_datasets_are_mixed_with_one_another(stored: Stored) -> None:
    across = [(feed.batch.parents < 96).sum(1) == 1 for feed in feeds(stored.load("vg", "sbu"), HALVES)]
    assert 0.4 < float(torch.cat(across).float().mean()) < 0.6


def test_each_dataset_has_an_order_of_its_own(stored: Stored) -> None:
    settings = replace(HALVES, mixup="none", batch_size=96, dataset_weights={"vg": 1, "sbu": 1})
    (feed,) = feeds(stored.load("vg", "sbu"), settings, stop=1)
    items = set(feed.batch.items.tolist())
    assert {item for item in items if item < 96} != {item - 96 for item in items if item >= 96}


@pytest.mark.parametrize("mixup", ["halves", "shift", "none"])
def test_any_step_can_be_made_without_those_before_it(
    stored: Stored, mixup: Literal["halves", "shift", "none"]
) -> None:
    train, settings = stored.load(*SPARSE), replace(HALVES, mixup=mixup, mixup_lambda="pair")
    through = feeds(train, settings)
    assert_equal(feeds(train, settings, start=5), through[5:])
    feeder = Feeder(train, settings, CPU)
    assert_equal([*kept(feeder.steps(6, 8)), *feeder.steps(1, 2)], [*through[6:], through[1]])
    other = feeds(train, replace(settings, seed=6))
    assert not torch.equal(other[0].batch.items, through[0].batch.items)
    assert len({feed.lam for feed in through + other}) == (1 if mixup == "none" else 16)


@pytest.mark.parametrize("captions", ["one", "all"])
@pytest.mark.parametrize("mixup", ["halves", "shift", "none"])
def test_the_same_bits_come_from_wherever_latents_wait(
    stored: Stored, mixup: Literal["halves", "shift", "none"], captions: Literal["one", "all"]
) -> None:
    settings = replace(HALVES, mixup=mixup, captions=captions)
    right = feeds(stored.load(*SPARSE), settings)
    places: tuple[Place, ...] = ("auto", "device", "host", "disk")
    for place in places:
        for mapped in (False, True):
            train = stored.load(*SPARSE, mapped=mapped)
            # Some in their files and some read, as where a modality is concatenated of two encoders' latents.
            train[0] = stored.load(*SPARSE)[0] if place == "host" else train[0]
            assert_equal(feeds(train, replace(settings, residency=place)), right)


def test_items_without_a_row_are_left_out(stored: Stored) -> None:
    (whole,) = stored.load("coco")
    # A modality that no edge names is taken away before.
    images = replace(whole, modalities={"image": whole["image"]})
    having = int(whole["image"].counts.bool().sum())
    assert having < 60
    with pytest.raises(FusemixError, match=f"{having} items to train on, but a step takes {having + 1}"):
        Feeder([images], replace(HALVES, mixup="none", batch_size=having + 1), CPU)
    feeder = Feeder([images], replace(HALVES, mixup="none", batch_size=having), CPU)
    (feed,) = feeder.steps(0, 1)
    expected = whole.items[whole["image"].counts.bool().numpy()].tolist()
    assert sorted(feeder.item_ids(feed.batch.items)) == expected
    assert bool(feed.batch.present["image"].all())


def test_items_are_named_with_their_dataset_where_there_are_several(stored: Stored) -> None:
    train, some = stored.load(*COMPLETE), replace(HALVES, batch_size=12)
    assert Feeder(train, some, CPU).item_ids(torch.tensor([95, 96, 0])) == ["095 of vg", "000 of fsd", "000 of vg"]
    assert Feeder(train[:1], some, CPU).item_ids(torch.tensor([59, 0])) == ["059", "000"]
    weighted = Feeder(train, replace(some, dataset_weights={"vg": 0, "fsd": 1}), CPU)
    assert weighted.item_ids(torch.tensor([23])) == ["023"]
    flat = Feeder(train[:1], replace(some, captions="all"), CPU)
    pairs = one_pair_a_row(train[0]).items
    assert flat.item_ids(torch.arange(len(pairs))) == pairs.tolist()


def test_the_feeder_says_what_is_trained_on_and_where_it_waits(stored: Stored) -> None:
    lines = str(Feeder(stored.load(*SPARSE), HALVES, CPU)).splitlines()
    assert [line.split(":")[0] for line in lines] == ["coco", "clotho", "latents"]
    assert "items of each step" in lines[0]
    assert "in memory, by fuse.residency auto" in lines[2]


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("feeder", "reader"))]


@pytest.mark.parametrize("place", ["device", "disk"])
def test_threads_end_with_the_steps(stored: Stored, place: Place) -> None:
    feeder = Feeder(stored.load(*SPARSE, mapped=True), replace(HALVES, residency=place), CPU)
    assert len(list(feeder.steps(0, 2))) == 2
    assert running() == []
    steps = feeder.steps(0, 100)
    next(steps)
    # On a CPU that has all at hand, a thread would only take time from training.
    assert (running() != []) == (place == "disk")
    steps.close()
    assert running() == []
    for _ in feeder.steps(0, 100):
        break
    assert running() == []
    assert list(feeder.steps(3, 3)) == []


@pytest.mark.parametrize("name", ["coco-image", "clotho-text"])
def test_a_file_that_is_cut_short_stops_training_with_a_line(stored: Stored, tmp_path: Path, name: str) -> None:
    copy = Stored(Path(shutil.copytree(stored.folder, tmp_path / "copy")))
    steps = Feeder(copy.load(*SPARSE, mapped=True), replace(HALVES, residency="disk"), CPU).steps(0, 100)
    next(steps)
    os.truncate(copy.folder / f"{name}.h5", 100)
    with pytest.raises(FusemixError, match=rf"{name}\.h5 has been cut short while it was in use: it has 100 bytes"):
        list(steps)
    assert running() == []


def test_a_file_that_is_replaced_changes_nothing(stored: Stored, tmp_path: Path) -> None:
    copy, settings = (
        Stored(Path(shutil.copytree(stored.folder, tmp_path / "copy"))),
        replace(HALVES, residency="disk"),
    )
    right = feeds(stored.load(*SPARSE), settings)
    steps = Feeder(copy.load(*SPARSE, mapped=True), settings, CPU).steps(0, 8)
    begun = kept([next(steps)])
    write(copy.folder, "coco", 30, ("image", "text"), 0.0, 9)
    assert_equal([*begun, *kept(steps)], right)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mixup", ["halves", "shift", "none"])
def test_a_gpu_is_fed_the_same_bits_from_wherever_latents_wait(
    stored: Stored, mixup: Literal["halves", "shift", "none"]
) -> None:
    settings = replace(HALVES, mixup=mixup, mixup_lambda="pair")
    on_cpu = feeds(stored.load(*SPARSE), settings)
    places: tuple[Place, ...] = ("device", "host", "disk")
    found = []
    for place in places:
        for mapped in (False, True):
            train = stored.load(*SPARSE, mapped=mapped)
            feeder = Feeder(train, replace(settings, residency=place), torch.device("cuda"))
            found.append(kept(feeder.steps(0, 8)))
    for given in found:
        assert_equal(given, found[0])
    for mine, other in zip(found[0], on_cpu, strict=True):
        assert torch.equal(mine.batch.parents.cpu(), other.batch.parents)
        for name, values in other.batch.values.items():
            torch.testing.assert_close(mine.batch.values[name].cpu(), values)
            assert torch.equal(mine.batch.content[name].cpu(), other.batch.content[name])
