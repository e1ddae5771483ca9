"""What `ranks` is measured on; that it runs is tested in `test_speed`."""

from __future__ import annotations

import pytest
import torch

from fusemix.benchmarks.speed import ranks


def test_captions_are_as_close_to_their_image_as_they_should_be() -> None:
    images, texts, positives = ranks.made_up(1000)
    assert (images.shape, texts.shape) == ((1000, 512), (5000, 512))
    assert positives[:6].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [0, 4], [1, 5]]
    for embeddings in (images, texts):
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(embeddings)))
    own = (images[positives[:, 0]] * texts).sum(dim=1)
    # The signal beside noise of length one.
    assert float(own.mean()) == pytest.approx(0.16 / (1 + 0.16**2) ** 0.5, abs=0.005)
    assert float((images @ texts[:50].T).std()) == pytest.approx(512**-0.5, rel=0.1)


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    measured = ranks.memory_of(200, "rankings")
    assert measured.items() >= {"work": "rankings", "queries": 200, "gallery": 1000}.items()
    assert "rankings, 200 x 1000: " in capsys.readouterr().out
