"""What each query found, as JSON lines: its right answer's rank, and the wrong answer that came closest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fusemix.files import replacing
from fusemix.latents.paired import ModalityLatents, PairedLatents

from .retrieval import Measured


def write_answers(path: Path, measured: Iterable[tuple[Measured, PairedLatents]]) -> int:
    """Write a line for every query of all directions, and return how many.

    Args:
        path: of the file.
        measured: what was measured, and the split that it was measured on.
    """
    lines = 0
    with replacing(path) as temporary, temporary.open("w") as file:
        for one, split in measured:
            for line in answers(one, split):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                lines += 1
    return lines


def answers(measured: Measured, split: PairedLatents) -> Iterator[dict[str, object]]:
    """Yield each query with its item, source, rank, best right and best wrong answer.

    `rank` is the mid-rank of the best right answer among the wrong ones, `tied` how many of these score the same.
    A query of several right answers that no wrong one is left for has `wrong` null.
    """
    rows = {name: _Rows(split.items, of) for name, of in split.modalities.items()}
    result = measured.result
    for (queries, gallery), direction, one in zip(
        measured.pairs, result.directions, measured.directions, strict=True
    ):
        own, others = rows[queries], rows[gallery]
        for index, row in enumerate(one.rows.tolist()):
            right, wrong = int(one.right[index]), int(one.wrong[index])
            of_right, of_wrong = one.scores[index].tolist()
            yield {
                "dataset": result.dataset,
                "direction": direction.name,
                **own.told(row),
                "rank": float(one.ranks[index]),
                "tied": int(one.tied[index]),
                **({"fold": int(one.folds[index])} if result.protocol.folds > 1 else {}),
                "right": {**others.told(right), "score": of_right},
                "wrong": None if wrong < 0 else {**others.told(wrong), "score": of_wrong},
            }


class _Rows:
    """The item and the source of each row of a modality."""

    def __init__(self, items: npt.NDArray[np.object_], latents: ModalityLatents) -> None:
        self._items, self._sources = items, latents.sources
        self._item_of = np.full(len(latents.sources), -1)
        self._item_of[latents.rows.numpy()] = latents.item_of_row.numpy()

    def told(self, row: int) -> dict[str, str]:
        return {"item": str(self._items[self._item_of[row]]), "source": str(self._sources[row])}
