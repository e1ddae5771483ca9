from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from fusemix.errors import FusemixError
from fusemix.latents.file import LatentRows, LatentsFile
from fusemix.latents.paired import PairedLatents
from fusemix.latents.provenance import DatasetStamp, Provenance, concatenated_spec, content_hash
from fusemix.latents.writer import LatentsWriter
from tests.fusemix.synthetic import encoder

DIMS = {"image": 3, "text": 2}
Rows = dict[str, list[tuple[list[float], str, int]]]


def split_of(item: str) -> str:
    return ("train", "val")[int(item) % 2]


def write(folder: Path, modality: str, seed: int) -> tuple[Path, Rows]:
    """Write a file of 40 rows of 15 items, some failed or still to do; return its finished rows by item."""
    rng = np.random.default_rng(seed)
    items = [str(item) for item in rng.integers(0, 15, 40)]
    sources = [f"caption {rng.integers(10)}" for _ in items]
    rows = LatentRows(items, sources, [split_of(item) for item in items])
    path = folder / f"{modality}.h5"
    provenance = Provenance(encoder(modality, DIMS[modality]), DatasetStamp("toys", "f00d"))
    LatentsFile.create(path, rows, provenance, "float32")
    latents = rng.normal(size=(40, DIMS[modality])).astype(np.float32)
    latents[rng.random(40) < 0.2] = np.nan
    committed = np.sort(rng.permutation(40)[:30])
    content = np.array([content_hash(source.encode()) for source in sources], np.uint64)
    with LatentsWriter(path) as writer:
        failed = writer.commit(committed, latents[committed], content[committed])
    expected = defaultdict(list)
    for row in committed[~failed].tolist():
        expected[items[row]].append(
            (latents[row].tolist(), sources[row], int(content[row : row + 1].view(np.int64)[0]))
        )
    return path, dict(expected)


def rows_of(latents: PairedLatents, modality: str) -> Rows:
    m = latents[modality]
    found = {}
    for position, item in enumerate(latents.items.tolist()):
        rows = m.rows[m.offsets[position] : m.offsets[position + 1]].tolist()
        if rows:
            found[item] = [(m.values[row].tolist(), m.sources[row], int(m.content[row])) for row in rows]
    return found


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_files_are_joined_on_their_items_and_split_by_them(tmp_path: Path, seed: int, mapped: bool) -> None:
    files, expected = {}, {}
    for number, modality in enumerate(DIMS):
        files[modality], expected[modality] = write(tmp_path, modality, 10 * seed + number)
    latents = PairedLatents.load(files, mapped=mapped)
    assert latents.items.tolist() == sorted(expected["image"].keys() | expected["text"].keys())
    assert len(latents) == len(latents.items)
    for modality in DIMS:
        assert rows_of(latents, modality) == expected[modality]
        assert latents[modality].spec == encoder(modality, DIMS[modality])
        for name in ("train", "val"):
            part = latents.split(name)
            assert (part[modality].mapped is not None) == mapped
            assert set(part.splits) == {name}
            mine = {item: rows for item, rows in expected[modality].items() if split_of(item) == name}
            assert rows_of(part, modality) == mine
            owners = part.items[part[modality].item_of_row.numpy()].tolist()
            assert owners == [item for item in sorted(mine) for _ in mine[item]]


def test_a_split_copies_no_latents(tmp_path: Path) -> None:
    latents = PairedLatents.load({"image": write(tmp_path, "image", 0)[0]})
    assert latents.split("val")["image"].values.data_ptr() == latents["image"].values.data_ptr()


@pytest.mark.parametrize("mapped", [False, True])
def test_chunks_show_every_row_of_a_split_once_in_the_order_of_the_file(tmp_path: Path, mapped: bool) -> None:
    part = PairedLatents.load({"image": write(tmp_path, "image", 3)[0]}, mapped=mapped).split("train")["image"]
    chunks = list(part.in_chunks(elements=7 * DIMS["image"]))
    assert [len(rows) for rows, _ in chunks[:-1]] == [7] * (len(chunks) - 1)
    seen = torch.cat([rows for rows, _ in chunks])
    assert seen.tolist() == sorted(part.rows.tolist())
    assert torch.equal(torch.cat([values for _, values in chunks]), part.values[seen])
    # A chunk holds a row at least, however long.
    assert [len(rows) for rows, _ in part.in_chunks(elements=1)] == [1] * len(seen)


def test_items_at_positions_keep_their_rows(tmp_path: Path) -> None:
    latents = PairedLatents.load({"image": write(tmp_path, "image", 3)[0]})
    part = latents.at(torch.tensor([1, 4, 5]))
    assert part.items.tolist() == latents.items[[1, 4, 5]].tolist()
    assert rows_of(part, "image") == {i: rows for i, rows in rows_of(latents, "image").items() if i in part.items}


def test_arrays_are_joined_like_files() -> None:
    latents = PairedLatents.from_arrays(
        {"image": np.array([[1.0], [2.0]]), "text": np.array([[3.0], [4.0], [5.0]])},
        {"image": ["b", "a"], "text": ["b", "c", "b"]},
        {"a": "train", "b": "val", "c": "train"},
        sources={"text": ["same", "other", "same"]},
    )
    assert latents.items.tolist() == ["a", "b", "c"]
    assert latents.splits.tolist() == ["train", "val", "train"]
    assert latents["image"].counts.tolist() == [1, 1, 0]
    assert latents["text"].counts.tolist() == [0, 2, 1]
    assert not latents["image"].one_each
    assert not latents["text"].one_each
    assert [row[0] for row in rows_of(latents, "text")["b"]] == [[3.0], [5.0]]
    content = latents["text"].content
    assert content[0] == content[2] != content[1]
    assert latents["image"].content[0] != latents["image"].content[1]


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(FusemixError, match=r"image: latents of shape \(2, 1\), 1 items and 1 sources do not belong"):
        PairedLatents.from_arrays({"image": np.ones((2, 1))}, {"image": ["a"]}, {"a": "train"})
    with pytest.raises(FusemixError, match=r"image: item 'b' has no split \(1 such rows\)"):
        PairedLatents.from_arrays({"image": np.ones((2, 1))}, {"image": ["a", "b"]}, {"a": "train"})


def test_several_splits_are_one_selection(tmp_path: Path) -> None:
    latents = PairedLatents.load({"image": write(tmp_path, "image", 3)[0]})
    both = latents.split("val", "train")
    assert set(both.splits) == {"train", "val"}
    assert len(both) == len(latents.split("train")) + len(latents.split("val"))
    assert list(both.items) == [item for item in latents.items if item in set(both.items)]
    with pytest.raises(FusemixError, match=r"no item in the split 'one' or 'two'"):
        latents.split("one", "two")


def test_a_split_of_no_items_is_refused_with_those_that_have_some(tmp_path: Path) -> None:
    latents = PairedLatents.load({"image": write(tmp_path, "image", 0)[0]})
    with pytest.raises(FusemixError, match=r"'toys' has no item in the split 'test' .*: train, val\)"):
        latents.split("test")


def test_a_modality_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    latents = PairedLatents.load({"image": write(tmp_path, "image", 0)[0]})
    with pytest.raises(FusemixError, match="no latents of modality 'img': did you mean 'image'"):
        latents["img"]


def store(path: Path, modality: str, stamp: DatasetStamp | None = None, split: str = "train") -> Path:
    spec = encoder(modality, 2)
    LatentsFile.from_arrays(path, ["a", "b"], np.ones((2, 2)), spec, splits=[split] * 2, dataset=stamp)
    return path


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (DatasetStamp("toys", "f00d"), DatasetStamp("toys", "f00d", "other manifest"), True),
        (DatasetStamp("toys", "f00d"), DatasetStamp("toys"), True),
        (DatasetStamp("toys", "f00d"), DatasetStamp("toys", "beef"), False),
        (DatasetStamp("toys"), DatasetStamp("birds"), False),
    ],
)
def test_files_of_different_datasets_are_refused(
    tmp_path: Path, first: DatasetStamp, second: DatasetStamp, same: bool
) -> None:
    files = {"image": store(tmp_path / "i.h5", "image", first), "text": store(tmp_path / "t.h5", "text", second)}
    if same:
        assert len(PairedLatents.load(files)) == 2
        return
    with pytest.raises(FusemixError, match=rf"i\.h5 and .*t\.h5 are of different datasets: '{first.name}'"):
        PairedLatents.load(files)


def test_the_third_file_is_compared_with_the_first_across_one_without_a_fingerprint(tmp_path: Path) -> None:
    files = {
        "image": store(tmp_path / "i.h5", "image", DatasetStamp("toys", "f00d")),
        "text": store(tmp_path / "t.h5", "text", DatasetStamp("toys")),
        "audio": store(tmp_path / "a.h5", "audio", DatasetStamp("toys", "beef")),
    }
    with pytest.raises(FusemixError, match=r"i\.h5 and .*a\.h5 are of different datasets"):
        PairedLatents.load(files)


def test_an_item_in_two_splits_is_refused(tmp_path: Path) -> None:
    files = {"image": store(tmp_path / "i.h5", "image"), "text": store(tmp_path / "t.h5", "text", split="val")}
    with pytest.raises(FusemixError, match="item 'a' is in the split 'val' for text and 'train' elsewhere"):
        PairedLatents.load(files)


def test_a_file_of_another_modality_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FusemixError, match=r"i\.h5 holds image latents, not text"):
        PairedLatents.load({"text": store(tmp_path / "i.h5", "image")})


def test_a_file_without_a_finished_row_is_refused(tmp_path: Path) -> None:
    rows = LatentRows(["a"], ["a"], ["train"])
    LatentsFile.create(tmp_path / "i.h5", rows, Provenance(encoder(), DatasetStamp("toys")))
    with pytest.raises(FusemixError, match=r"i\.h5 has no finished row"):
        PairedLatents.load({"image": tmp_path / "i.h5"})


@pytest.mark.parametrize("mapped", [False, True])
def test_a_latent_that_is_not_finite_is_named_by_row_item_and_source(tmp_path: Path, mapped: bool) -> None:
    path = store(tmp_path / "i.h5", "image")
    with h5py.File(path, "r+") as file:
        file["latents"][1, 0] = np.nan
    with pytest.raises(FusemixError, match=r"image latent of row 1 \(item 'b', 'b#1'\) is NaN or infinite"):
        PairedLatents.load({"image": path}, mapped=mapped)


def test_latents_keep_the_type_of_the_file(tmp_path: Path) -> None:
    assert PairedLatents.load({"image": store(tmp_path / "i.h5", "image")})["image"].values.dtype == torch.float16


@pytest.mark.parametrize("mapped", [False, True])
def test_several_files_of_a_modality_are_concatenated(tmp_path: Path, mapped: bool) -> None:
    stamp = DatasetStamp("toys", "f00d")
    first, second = encoder("audio", 2, name="tagger"), encoder("audio", 3, name="recogniser", pooling="mean")
    whole = np.arange(8.0).reshape(4, 2)
    LatentsFile.from_arrays(
        tmp_path / "1.h5", ["a", "a", "b", "c"], whole, first, sources=["x", "y", "z", "w"], dataset=stamp
    )
    other = np.arange(9.0).reshape(3, 3)
    LatentsFile.from_arrays(
        tmp_path / "2.h5", ["c", "a", "a"], other, second, sources=["w", "y", "x"], dataset=stamp, dtype="float32"
    )
    with pytest.warns(UserWarning, match=r"1 of 4 audio rows are left out: not each of .*1\.h5, .*2\.h5 has them"):
        latents = PairedLatents.load({"audio": [tmp_path / "1.h5", str(tmp_path / "2.h5")]}, mapped=mapped)
    # Nowhere do they lie side by side, so they are read even where others would be mapped.
    assert latents["audio"].mapped is None
    assert latents.items.tolist() == ["a", "c"]
    found = {item: [(row[0], row[1]) for row in rows] for item, rows in rows_of(latents, "audio").items()}
    assert found == {
        "a": [([0, 1, 6, 7, 8], "x"), ([2, 3, 3, 4, 5], "y")],
        "c": [([6, 7, 0, 1, 2], "w")],
    }
    assert latents["audio"].spec == concatenated_spec([first, second])
    assert latents["audio"].values.dtype == torch.float32


def test_a_list_of_one_file_is_that_file(tmp_path: Path) -> None:
    path, expected = write(tmp_path, "image", 0)
    latents = PairedLatents.load({"image": [path]})
    assert rows_of(latents, "image") == expected
    assert latents["image"].spec == encoder("image", DIMS["image"])


def test_no_file_for_a_modality_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FusemixError, match="no latents file was given for 'image'"):
        PairedLatents.load({"image": []})


def test_files_to_concatenate_must_be_of_one_dataset_and_modality(tmp_path: Path) -> None:
    ours = store(tmp_path / "i.h5", "image", DatasetStamp("toys", "f00d"))
    theirs = store(tmp_path / "j.h5", "image", DatasetStamp("toys", "beef"))
    with pytest.raises(FusemixError, match=r"i\.h5 and .*j\.h5 are of different datasets"):
        PairedLatents.load({"image": [ours, theirs]})
    with pytest.raises(FusemixError, match=r"t\.h5 holds text latents, not image"):
        PairedLatents.load({"image": [ours, store(tmp_path / "t.h5", "text", DatasetStamp("toys", "f00d"))]})
