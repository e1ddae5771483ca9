from __future__ import annotations

from fusemix.benchmarks.history import Curve, Direction, History
from fusemix.benchmarks.panel_rows import panel_rows


def run(*fields: str) -> History:
    return History("run", dict.fromkeys(fields, Curve([0], [1.0])), 1)


def test_each_edge_has_a_row_with_its_two_directions() -> None:
    fields = ["loss", "loss/text-image", "loss/text-audio"]
    ways = ["image-to-text", "text-to-image", "text-to-audio", "audio-to-text"]
    rows = panel_rows([run(*fields, *(f"{way}/mrr" for way in ways))])
    assert [(row.edge, row.title) for row in rows] == [("text-image", "text ↔ image"), ("text-audio", "text ↔ audio")]
    assert rows[0].directions == (Direction("", "text", "image"), Direction("", "image", "text"))
    assert all(row.with_loss for row in rows)


def test_each_dataset_has_a_row_and_the_first_the_loss() -> None:
    ways = [f"{dataset}/{way}/R@1" for dataset in ("coco", "sbu") for way in ("image-to-text", "text-to-image")]
    rows = panel_rows([run("loss/image-text", *ways)])
    assert [(row.title, row.with_loss) for row in rows] == [
        ("coco: image ↔ text", True),
        ("sbu: image ↔ text", False),
    ]


def test_runs_share_the_rows_of_edges_that_both_have() -> None:
    one, other = run("loss/image-text"), run("loss/image-text", "loss/image-audio")
    assert [row.edge for row in panel_rows([one, other])] == ["image-text", "image-audio"]


def test_a_run_without_losses_of_edges_shows_its_total_loss() -> None:
    old = run("loss", "image-to-text/mrr", "text-to-image/mrr")
    [row] = panel_rows([old])
    assert (row.edge, row.loss_of(old)) == ("image-text", "loss")
    [bare] = panel_rows([run("loss")])
    assert (bare.edge, bare.title, bare.directions) == ("", "", ())
    [both] = panel_rows([old, run("loss/text-image")])
    assert both.edge == "text-image"
