"""CKA in feature space against the kernel matrices that it never builds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fusemix.benchmarks.cka import CkaMatrix, cka_matrix
from fusemix.errors import FusemixError
from fusemix.latents.file import LatentsFile
from fusemix.latents.provenance import DatasetStamp, EncoderSpec

from .labelled_world import Floats

STAMP = DatasetStamp("small", "f00d")


def stored(
    path: Path,
    values: Floats,
    items: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    *,
    modality: str = "image",
    stamp: DatasetStamp = STAMP,
) -> LatentsFile:
    spec = EncoderSpec(name=path.stem, modality=modality, dim=values.shape[1], weights="none")
    ids = [f"item{row:03}" for row in range(len(values))] if items is None else items
    return LatentsFile.from_arrays(path, ids, values, spec, splits=splits, dataset=stamp, dtype="float32")


def kernels(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    return x @ x.T, y @ y.T


def biased_hsic(k: Floats, other: Floats) -> float:
    centre = np.eye(len(k)) - 1 / len(k)
    return float(np.trace(k @ centre @ other @ centre) / (len(k) - 1) ** 2)


def unbiased_hsic(k: Floats, other: Floats) -> float:
    """Song et al., JMLR 2012, equation 5."""
    n, one = len(k), np.ones(len(k))
    k, other = (kernel - np.diag(np.diag(kernel)) for kernel in (k, other))
    terms = np.trace(k @ other)
    terms += (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
    terms -= 2 / (n - 2) * (one @ k @ other @ one)
    return float(terms / (n * (n - 3)))


def ratio(hsic: object, x: Floats, y: Floats) -> float:
    assert callable(hsic)
    k, other = kernels(x.astype(np.float64), y.astype(np.float64))
    return float(hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other)))


def related(count: int, dims: tuple[int, int], seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(count, 4))
    x, y = (hidden @ rng.normal(size=(4, dim)) + 2 * rng.normal(size=(count, dim)) for dim in dims)
    return (x + 3).astype(np.float32), (y - 50).astype(np.float32)


def between(tmp_path: Path, x: Floats, y: Floats, items_at_once: int = 4096) -> CkaMatrix:
    for path in tmp_path.glob("*.h5"):
        path.unlink()
    return cka_matrix(
        [stored(tmp_path / "x.h5", x), stored(tmp_path / "y.h5", y, modality="text")], items_at_once=items_at_once
    )


@pytest.mark.parametrize(("count", "dims"), [(31, (5, 7)), (12, (30, 3)), (9, (20, 25)), (4, (2, 3))])
def test_both_estimates_are_those_of_the_kernel_matrices(tmp_path: Path, count: int, dims: tuple[int, int]) -> None:
    x, y = related(count, dims, seed=count)
    found = between(tmp_path, x, y)
    assert found.biased[0][1] == pytest.approx(ratio(biased_hsic, x, y), abs=1e-9)
    assert found.values[0][1] == pytest.approx(ratio(unbiased_hsic, x, y), abs=1e-8)
    assert found.values[1][0] == found.values[0][1]
    assert [found.values[place][place] for place in (0, 1)] == [1, 1]
    assert found.items == ((count, count), (count, count))


@pytest.mark.parametrize("items_at_once", [1, 2, 7, 31, 1000])
def test_how_many_are_read_at_once_changes_nothing(tmp_path: Path, items_at_once: int) -> None:
    x, y = related(31, (5, 7), seed=0)
    whole, parts = between(tmp_path, x, y), between(tmp_path, x, y, items_at_once=items_at_once)
    assert np.array(parts.values) == pytest.approx(np.array(whole.values), abs=1e-12)
    assert np.array(parts.biased) == pytest.approx(np.array(whole.biased), abs=1e-12)


def test_rotation_scale_and_shift_change_nothing(tmp_path: Path) -> None:
    x, y = related(40, (6, 9), seed=1)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    expected = between(tmp_path, x, y)
    found = between(tmp_path, (0.01 * x.astype(np.float64) @ rotation + 4).astype(np.float32), 100 * y)
    assert found.values[0][1] == pytest.approx(expected.values[0][1], abs=1e-4)
    assert found.biased[0][1] == pytest.approx(expected.biased[0][1], abs=1e-4)
    same = between(tmp_path, x, (x @ rotation).astype(np.float32))
    assert (same.values[0][1], same.biased[0][1]) == pytest.approx((1, 1), abs=1e-5)


def test_a_linear_map_that_is_no_rotation_does_change_it(tmp_path: Path) -> None:
    x, _ = related(40, (6, 9), seed=1)
    assert between(tmp_path, x, x * np.array([10, 1, 1, 1, 1, 0.1], np.float32)).values[0][1] < 0.95


def test_unrelated_latents_are_at_zero_only_without_the_bias(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = [between(tmp_path, rng.normal(size=(60, 80)), rng.normal(size=(60, 80))) for _ in range(5)]
    assert abs(np.mean([one.values[0][1] for one in found])) < 0.05
    assert min(one.biased[0][1] for one in found) > 0.4


def test_only_items_that_both_have_count_and_each_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    x, y = (rng.normal(size=shape).astype(np.float32).astype(np.float64) for shape in ((50, 4), (70, 3)))
    of_x, of_y = (np.array([f"i{n}" for n in rng.integers(30, size=count)]) for count in (50, 70))
    of_y[:9] = "only here"
    splits = {item: "train" if n % 3 else "test" for n, item in enumerate(sorted({*of_x, *of_y}))}
    files = [
        stored(tmp_path / f"{name}.h5", values, items.tolist(), [splits[item] for item in items])
        for name, values, items in (("x", x, of_x), ("y", y, of_y))
    ]
    for split in ("train", "test"):
        both = sorted(item for item in {*of_x} & {*of_y} if splits[item] == split)
        means = [
            np.stack([values[items == item].mean(axis=0) for item in both])
            for values, items in ((x, of_x), (y, of_y))
        ]
        found = cka_matrix(files, split, 3)
        assert found.items[0][1] == len(both)
        assert found.values[0][1] == pytest.approx(ratio(unbiased_hsic, *means), abs=1e-9)


def test_each_pair_of_a_matrix_is_that_of_the_pair_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    hidden = rng.normal(size=(40, 3))
    shapes = {"a": (40, 5, "image"), "b": (40, 8, "image"), "c": (33, 4, "text"), "d": (40, 6, "text")}
    files = []
    for name, (count, dim, modality) in shapes.items():
        values = (hidden @ rng.normal(size=(3, dim)) + rng.normal(size=(40, dim)))[:count]
        files.append(stored(tmp_path / f"{name}.h5", values, modality=modality))
    whole = cka_matrix(files)
    assert whole.names == ("image/a", "image/b", "text/c", "text/d")
    for i in range(4):
        for j in range(4):
            if i != j:
                alone = cka_matrix([files[i], files[j]])
                assert whole.values[i][j] == pytest.approx(alone.values[0][1], abs=1e-12)
                assert whole.items[i][j] == alone.items[0][1] == (33 if 2 in (i, j) else 40)
    across = {(i, j): whole.values[i][j] for i in (0, 1) for j in (2, 3)}
    assert whole.best_pair() == max(across, key=lambda pair: across[pair])
    assert cka_matrix(files[:2]).best_pair() is None
    record = json.loads(json.dumps(whole.to_dict()))
    assert (record["dataset"], record["fingerprint"], record["split"]) == ("small", "f00d", "train")


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    x, y = related(20, (5, 7), seed=0)
    one, other = stored(tmp_path / "x.h5", x), stored(tmp_path / "y.h5", y, modality="text")
    few = stored(tmp_path / "few.h5", y, [f"item{row + 17:03}" for row in range(20)])
    still = stored(tmp_path / "still.h5", np.full((20, 3), 0.1))
    elsewhere = stored(tmp_path / "else.h5", y, stamp=DatasetStamp("small", "beef"))
    refused = {
        "CKA compares two latents files at least, not 1": [one],
        f"{one.path} is given twice": [one, LatentsFile(one.path)],
        f"{one.path} and {few.path} have 3 items of the split 'train' in common: CKA needs 4 at least": [one, few],
        f"the latents in {still.path} are all the same: CKA compares how they differ": [one, still],
        f"{other.path} and {elsewhere.path} are of different datasets: 'small' (f00d) and 'small' (beef)": [
            other,
            elsewhere,
        ],
    }
    for said, files in refused.items():
        with pytest.raises(FusemixError) as error:
            cka_matrix(files)
        assert str(error.value) == said
    with pytest.raises(FusemixError, match=r"x.h5 has no latent of the split 'test' \(splits with latents: train\)"):
        cka_matrix([one, other], "test")
