from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fusemix.benchmarks.speed import batches
from fusemix.latents.paired import PairedLatents


def test_both_ways_make_batches_of_mixed_latents() -> None:
    # With equal latents everywhere, so is every mixture, whoever is drawn.
    latents = {name: torch.full((40, dim), 0.5, dtype=torch.float16) for name, dim in batches.DIMS.items()}
    for way in (batches.fed, batches.collated):
        make = way(latents, 12)
        for _ in range(3):
            found = make()
            assert {name: tuple(values.shape) for name, values in found.items()} == {
                "image": (12, 1536),
                "text": (12, 1024),
            }
            assert all(bool((values == 0.5).all()) and values.dtype == torch.float32 for values in found.values())


def test_every_latent_of_the_pool_is_drawn_at_random() -> None:
    latents = batches.matrices(10)
    assert {name: (values.dtype, tuple(values.shape)) for name, values in latents.items()} == {
        "image": (torch.float16, (10, 1536)),
        "text": (torch.float16, (10, 1024)),
    }
    assert all(float(values.float().std(dim=1).min()) > 0.9 for values in latents.values())


def test_training_is_measured_on_files_of_which_the_bytes_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = batches.store(tmp_path, 1500)
    stored = PairedLatents.load({name: tmp_path / f"{name}.h5" for name in ("first", "second")})
    assert len(stored.split("train")) == 1500
    assert size == sum(modality.values.numel() * 2 for modality in stored.modalities.values())
    batches.main(str(tmp_path), "64", "2")
    assert int(capsys.readouterr().out.splitlines()[-1]) > size


@pytest.mark.slow
def test_batches_are_measured_beside_dictionaries_and_training_by_its_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    read = batches.run(quick=True)
    printed = capsys.readouterr().out
    assert "batch of 1000 items (1536 + 1024 dims) with mixup of halves: time " in printed
    assert "faster than dictionaries with default_collate" in printed
    assert "training on 5000 items (2 x 256 dims, float16), 2 steps of 512 pairs: peak 0." in printed
    assert isinstance(read["training"], dict)
    assert read["training"]["peak_bytes"] > read["training"]["latents_bytes"] > 5000 * 2 * 256 * 2
    assert list(tmp_path.iterdir()) == []
