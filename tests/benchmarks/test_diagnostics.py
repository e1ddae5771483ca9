"""Diagnostics against their formulas with whole matrices in float64."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fusemix.benchmarks import diagnostics
from fusemix.benchmarks.diagnostics import alignment, diagnose, effective_rank, hubness, modality_gap, uniformity
from fusemix.errors import FusemixError
from fusemix.latents.file import LatentsFile
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import DatasetStamp, EncoderSpec

from .labelled_world import Floats
from .small_world import encoded_by, identity_space, small_world


def rows(count: int, dim: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


def unit(values: Tensor) -> Floats:
    of = values.double().numpy()
    return np.asarray(of / np.linalg.norm(of, axis=1, keepdims=True))


def squared_distances(values: Tensor) -> Floats:
    of = unit(values)
    return np.asarray(((of[:, None] - of[None]) ** 2).sum(axis=2))


def occurrences(queries: Tensor, gallery: Tensor, k: int) -> Floats:
    cosines = unit(queries) @ unit(gallery).T
    return np.bincount(np.argsort(-cosines, axis=1)[:, :k].ravel(), minlength=len(gallery)).astype(np.float64)


def test_the_gap_is_the_distance_of_the_means() -> None:
    a, b = rows(31, 6, 0, 0.5), rows(17, 6, 1, -0.2)
    assert modality_gap(a, b) == pytest.approx(np.linalg.norm(unit(a).mean(axis=0) - unit(b).mean(axis=0)), abs=1e-12)
    assert modality_gap(a, a) == 0
    assert modality_gap(torch.ones(3, 2), -torch.ones(5, 2)) == pytest.approx(2)


def test_alignment_is_the_mean_squared_distance_of_positives(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = rows(31, 6, 0), rows(31, 6, 1)
    expected = ((unit(a) - unit(b)) ** 2).sum(axis=1).mean()
    assert alignment(a, b) == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr(diagnostics, "ROWS_AT_ONCE", 7)
    assert alignment(a, b) == pytest.approx(expected, abs=1e-12)
    assert alignment(a, 3 * a) == pytest.approx(0, abs=1e-12)
    assert alignment(a, -a) == pytest.approx(4)


@pytest.mark.parametrize("tile", [1, 2, 10, 37, 1024])
@pytest.mark.parametrize("t", [2.0, 0.5])
def test_uniformity_is_that_of_all_pairs_whatever_the_tile(tile: int, t: float) -> None:
    a = torch.cat([rows(37, 6, 0, 0.3), rows(37, 6, 0, 0.3)[:4]])
    distances = squared_distances(a)[np.triu_indices(len(a), 1)]
    assert uniformity(a, t, tile) == pytest.approx(np.log(np.exp(-t * distances).mean()), abs=1e-12)


def test_uniformity_of_one_point_and_of_two_poles() -> None:
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0, abs=1e-12)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8)
    with pytest.raises(FusemixError, match="uniformity needs at least two rows, not 1"):
        uniformity(torch.ones(1, 3))


@pytest.mark.parametrize(("count", "dim"), [(40, 7), (5, 9), (2, 3)])
def test_the_effective_rank_is_that_of_the_singular_values(
    count: int, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = rows(count, dim, 0, 5.0) * torch.logspace(0, -2, dim)
    centred = a.double().numpy() - a.double().numpy().mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)[: min(count - 1, dim)]
    shares = values / values.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(a) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(diagnostics, "ROWS_AT_ONCE", 3)
    assert effective_rank(a) == pytest.approx(expected, rel=1e-9)


def test_the_effective_rank_counts_equal_dimensions() -> None:
    basis = torch.linalg.qr(rows(20, 20, 0).double())[0][:3].float()
    corners = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    assert effective_rank(corners @ basis + 7) == pytest.approx(3, rel=1e-5)
    assert effective_rank(torch.outer(torch.arange(9.0), basis[0])) == pytest.approx(1, rel=1e-5)
    with pytest.raises(FusemixError, match="all 4 rows are the same: they have no effective rank"):
        effective_rank(torch.full((4, 3), 0.5))


@pytest.mark.parametrize("k", [1, 3, 10])
def test_hubness_is_the_skewness_of_the_k_occurrence(k: int) -> None:
    queries, gallery = rows(60, 8, 0), rows(23, 8, 1) + 0.5
    counts = occurrences(queries, gallery, k)
    skewness = ((counts - counts.mean()) ** 3).mean() / counts.std() ** 3
    assert hubness(queries, gallery, k) == pytest.approx((skewness, (counts == 0).mean()), abs=1e-9)


def test_a_hub_is_seen() -> None:
    gallery = torch.cat([rows(30, 8, 1), torch.ones(1, 8)])
    skewness, _ = hubness(rows(200, 8, 0, 3.0), gallery, 1)
    assert skewness > 4


def test_a_gallery_whose_rows_all_tie_has_no_hubs() -> None:
    assert hubness(rows(20, 3, 0), torch.ones(13, 3), 10) == (0.0, 0.0)
    assert hubness(torch.eye(12), torch.eye(12), 1) == (0.0, 0.0)
    with pytest.raises(FusemixError, match="hubness of 10 neighbours needs a gallery of more than 10 rows, not 10"):
        hubness(rows(20, 3, 0), rows(10, 3, 1))


def test_duplicates_share_what_hubs_get() -> None:
    queries, gallery = rows(50, 5, 0), rows(20, 5, 1)
    nearest, two = occurrences(queries, gallery, 1), occurrences(queries, gallery, 2)
    # Of four places, three go to the nearest and its duplicates, and the next one and its duplicates share the last.
    counts = np.tile(nearest + (two - nearest) / 3, 3)
    expected = ((counts - counts.mean()) ** 3).mean() / counts.std() ** 3, (counts == 0).mean()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    for of in (torch.cat([gallery] * 3), torch.cat([gallery] * 3)[order]):
        assert hubness(queries, of, 4) == pytest.approx(expected, abs=1e-9)


def test_all_figures_of_a_split_are_of_its_items() -> None:
    world = small_world(test=60)
    result = diagnose(identity_space(), world, "test", 3)
    items = world.split("test")
    embedded = {name: items[name].values[items[name].rows] for name in ("image", "text")}
    of_item = {name: items[name].item_of_row.numpy() for name in ("image", "text")}
    for figures in result.modalities:
        of = embedded[figures.modality]
        assert (figures.rows, figures.dim) == (len(of), 6)
        assert figures.uniformity == pytest.approx(uniformity(of), abs=1e-6)
        assert figures.effective_rank == pytest.approx(effective_rank(torch.from_numpy(unit(of))), rel=1e-5)
    both = set(of_item["image"]) & set(of_item["text"])
    assert both < set(of_item["text"]), "an item without a picture"
    x, y = (embedded[name][[item in both for item in of_item[name]]] for name in ("image", "text"))
    pairs = [(i, j) for i, a in enumerate(of_item["image"]) for j, b in enumerate(of_item["text"]) if a == b]
    assert max(np.bincount([i for i, _ in pairs])) > 1
    assert max(np.bincount([j for _, j in pairs])) > 1
    distances = [((unit(embedded["image"])[i] - unit(embedded["text"])[j]) ** 2).sum() for i, j in pairs]
    [pair] = result.pairs
    assert (pair.a, pair.b, pair.items) == ("image", "text", len(both))
    assert pair.alignment == pytest.approx(np.mean(distances), abs=1e-6)
    assert pair.modality_gap == pytest.approx(modality_gap(x, y), abs=1e-6)
    for one, queries, gallery in zip(pair.hubness, (x, y), (y, x), strict=True):
        assert (one.skewness, one.never) == pytest.approx(hubness(queries, gallery, 3), abs=1e-6)
    assert [one.direction for one in pair.hubness] == ["image to text", "text to image"]
    assert json.loads(json.dumps(result.to_dict()))["split"] == "test"
    assert (result.dataset, result.split) == ("small", "test")


def test_modalities_without_common_items_have_no_pair() -> None:
    rng = np.random.default_rng(0)
    latents = {name: rng.normal(size=(12, 6)).astype(np.float32) for name in ("image", "text", "depth")}
    items = {name: [f"{name}{number}" for number in range(12)] for name in latents}
    joined = PairedLatents.from_arrays(latents, items, {item: "test" for ids in items.values() for item in ids})
    result = diagnose(identity_space(), joined)
    assert [figures.modality for figures in result.modalities] == ["image", "text"]
    assert result.pairs == ()


def test_latents_of_another_encoder_are_refused() -> None:
    world = encoded_by(small_world(), "mine")
    space = identity_space(specs={"image": encoded_by(small_world(), "theirs")["image"].spec})
    with pytest.raises(FusemixError, match="the image adapter was trained for another encoder"):
        diagnose(space, world)


def test_mapped_latents_give_the_same_in_any_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for name in ("image", "text"):
        spec = EncoderSpec(name="e", modality=name, dim=6, weights="none")
        ids = [f"item{number}" for number in rng.permutation(30)]
        stamp, latents = DatasetStamp("d"), rng.normal(size=(30, 6))
        LatentsFile.from_arrays(tmp_path / f"{name}.h5", ids, latents, spec, splits=["test"] * 30, dataset=stamp)
    files = {name: tmp_path / f"{name}.h5" for name in ("image", "text")}
    expected = diagnose(identity_space(), PairedLatents.load(files)).to_dict()
    monkeypatch.setattr(diagnostics, "ROWS_AT_ONCE", 7)
    found = diagnose(identity_space(), PairedLatents.load(files, mapped=True)).to_dict()
    for one, other in zip(flat(found), flat(expected), strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def flat(value: object) -> list[float]:
    """Return all numbers of a record."""
    if isinstance(value, dict):
        return [number for part in value.values() for number in flat(part)]
    if isinstance(value, (list, tuple)):
        return [number for part in value for number in flat(part)]
    return [value] if isinstance(value, (int, float)) else []
