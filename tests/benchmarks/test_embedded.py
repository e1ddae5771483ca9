from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fusemix.adapters.linear import LinearAdapter
from fusemix.benchmarks import embedded
from fusemix.benchmarks.embedded import EmbeddedRows, embed_rows, read
from fusemix.benchmarks.per_query import per_query
from fusemix.errors import FusemixError
from fusemix.joint_space import JointSpace
from fusemix.latents.file import LatentsFile
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import DatasetStamp, EncoderSpec

ITEMS, CAPTIONS, DIMS = 60, 3, {"image": 7, "text": 5}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Pictures and three captions of each, in latents files; one caption stands twice."""
    rng = np.random.default_rng(0)
    ids = [f"{item:02}" for item in range(ITEMS)]
    rows = {"image": ids, "text": [item for item in ids for _ in range(CAPTIONS)]}
    paths = {name: tmp_path / f"{name}.h5" for name in DIMS}
    for name, path in paths.items():
        values = rng.standard_normal((len(rows[name]), DIMS[name])).astype(np.float32)
        values[-1] = values[0]
        spec = EncoderSpec(name="random", modality=name, dim=DIMS[name], weights="none")
        splits = ["test"] * len(rows[name])
        LatentsFile.from_arrays(path, rows[name], values, spec, splits=splits, dataset=DatasetStamp("random"))
    return paths


def a_space() -> JointSpace:
    torch.manual_seed(0)
    return JointSpace({name: LinearAdapter(dim, 4) for name, dim in DIMS.items()})


def test_a_gallery_in_its_file_gives_the_ranks_of_one_in_memory(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = a_space()
    here = per_query(space, PairedLatents.load(files), "image", "text", (1, 5))
    monkeypatch.setattr(embedded, "SHARE_OF_FREE", 0.0)
    latents = PairedLatents.load(files, mapped=True)
    assert all(isinstance(rows, EmbeddedRows) for rows in embed_rows(space, latents, DIMS).values())
    there = per_query(space, latents, "image", "text", (1, 5))
    for one, other in zip(here, there, strict=True):
        assert one.ranks.tolist() == other.ranks.tolist()
        assert one.tied.tolist() == other.tied.tolist()
        assert (one.right.tolist(), one.wrong.tolist()) == (other.right.tolist(), other.wrong.tolist())
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
        for name, values in one.metrics.items():
            np.testing.assert_allclose(values, other.metrics[name], rtol=1e-12)


def test_the_smaller_side_is_held_where_only_it_fits(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_of_images = 4 * 4 * ITEMS
    monkeypatch.setattr(embedded, "free_memory", lambda _device: bytes_of_images / embedded.SHARE_OF_FREE)
    embeddings = embed_rows(a_space(), PairedLatents.load(files), ("text", "image"))
    assert isinstance(embeddings["image"], torch.Tensor)
    assert isinstance(embeddings["text"], EmbeddedRows)


def test_rows_are_chosen_before_they_are_embedded(files: dict[str, Path]) -> None:
    space, latents = a_space(), PairedLatents.load(files, mapped=True)
    whole = space.encode("text", latents["text"].values[latents["text"].rows])
    source = EmbeddedRows(space, "text", latents["text"])
    chosen = torch.arange(len(source)) % 3 == 1
    assert len(source[chosen]) == ITEMS
    torch.testing.assert_close(source[chosen].rows(5, 9), whole[chosen][5:9])
    places = torch.tensor([170, 3, 3])
    torch.testing.assert_close(read(source, places), whole[places])
    torch.testing.assert_close(read(whole, places), whole[places])


def test_a_file_that_is_cut_short_meanwhile_is_one_line(files: dict[str, Path]) -> None:
    source = EmbeddedRows(a_space(), "text", PairedLatents.load(files, mapped=True)["text"])
    os.truncate(files["text"], 100)
    with pytest.raises(FusemixError, match=r"text\.h5 has been cut short while it was in use"):
        source.rows(0, 1)


def test_what_is_held_was_embedded_some_rows_at_a_time(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    space, latents = a_space(), PairedLatents.load(files, mapped=True)
    whole = {name: space.encode(name, of.values[of.rows]) for name, of in latents.modalities.items()}
    encode, seen = space.encode, list[int]()

    def watched(name: str, rows: torch.Tensor) -> torch.Tensor:
        seen.append(len(rows))
        return encode(name, rows)

    monkeypatch.setattr(embedded, "ROWS_AT_ONCE", 50)
    monkeypatch.setattr(space, "encode", watched)
    found = embed_rows(space, latents, DIMS)
    assert seen == [50, 10, 50, 50, 50, 30]
    for name, embeddings in found.items():
        assert isinstance(embeddings, torch.Tensor)
        torch.testing.assert_close(embeddings, whole[name])
