from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from fusemix.training import assembly
from fusemix.training.assembly import Ingredients, Piece, assemble

PAIRS, DIM = 23, 5


def pieces(rng: torch.Generator, count: int, dtype: torch.dtype) -> list[Piece]:
    """Return what some tables give to the pairs: none, all from one, or a part from each and some pairs without."""
    if count == 1:
        return [
            Piece(torch.randn(40, DIM, generator=rng).to(dtype), torch.randint(40, (PAIRS,), generator=rng), None)
        ]
    table = torch.randint(count + 1, (PAIRS,), generator=rng)
    tables = [(table == number).nonzero()[:, 0] for number in range(count)]
    return [
        Piece(torch.randn(40, DIM, generator=rng).to(dtype), torch.randint(40, (len(where),), generator=rng), where)
        for where in tables
    ]


def by_hand(parents: list[list[Piece]], weight: Tensor) -> npt.NDArray[np.float64]:
    """Return the mixed latents in float64, pair by pair."""
    values = np.zeros((len(parents), PAIRS, DIM))
    for number, parent in enumerate(parents):
        for piece in parent:
            for place, row in enumerate(piece.index.tolist()):
                pair = place if piece.places is None else int(piece.places[place])
                values[number, pair] = piece.values[row].double().numpy()
    column = weight.double().numpy()
    mixed: npt.NDArray[np.float64] = column * values[0] + (1 - column) * values[-1]
    return mixed


def given(parents: list[list[Piece]], weight: float | Tensor) -> Ingredients:
    return Ingredients({"image": parents}, {"image": DIM}, {}, torch.zeros(PAIRS, len(parents)).long(), {}, weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("tables", [0, 1, 3])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, None])
def test_latents_are_mixed_in_their_places_however_many_at_once(
    monkeypatch: pytest.MonkeyPatch, weight: float | None, tables: int, dtype: torch.dtype
) -> None:
    rng = torch.Generator().manual_seed(tables)
    first = pieces(rng, tables, dtype)
    # The partner's tables are others, but the pairs that have the modality are the same.
    second = [Piece(p.values.flip(0), torch.randint(40, p.index.shape, generator=rng), p.places) for p in first]
    drawn = torch.rand(PAIRS, 1, generator=rng)
    used = torch.full((PAIRS, 1), weight) if weight is not None else drawn
    found = []
    for rows in (1, 4, 100):
        monkeypatch.setitem(assembly.BYTES_AT_ONCE, "cpu", 4 * DIM * rows)
        found.append(assemble(given([first, second], drawn if weight is None else weight)).values["image"])
        alone = assemble(given([first], 1.0)).values["image"]
        np.testing.assert_allclose(alone.numpy(), by_hand([first], used), rtol=1e-6)
    assert found[0].dtype == torch.float32
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    np.testing.assert_allclose(found[0].numpy(), by_hand([first, second], used), rtol=1e-5, atol=1e-6)


def test_what_is_mixed_with_itself_stays_as_it_is() -> None:
    rng = torch.Generator().manual_seed(0)
    parents = [pieces(rng, 1, torch.float16)] * 2
    values = assemble(given(parents, torch.rand(PAIRS, 1, generator=rng))).values["image"]
    assert torch.equal(values, parents[0][0].values[parents[0][0].index].float())


def test_what_both_parents_draw_from_is_sent_once() -> None:
    table, rows, places = torch.ones(40, DIM), [torch.zeros(PAIRS).long() for _ in range(2)], torch.arange(PAIRS)
    parents = [[Piece(table, index, places)] for index in rows]
    hashes, mask, weight = torch.zeros(PAIRS, 2).long(), torch.ones(PAIRS).bool(), torch.ones(PAIRS, 1)
    ingredients = Ingredients({"image": parents}, {"image": DIM}, {"image": mask}, hashes, {"image": hashes}, weight)
    sent: list[Tensor] = []

    def move(tensor: Tensor) -> Tensor:
        sent.append(tensor)
        return tensor.clone()

    moved = ingredients.moved(move)
    assert [id(tensor) for tensor in sent] == [id(t) for t in (table, rows[0], places, rows[1], mask, hashes, weight)]
    assert moved.pieces["image"][0][0].values is moved.pieces["image"][1][0].values is not table
    assert moved.weight is not weight
    assert moved.dims == {"image": DIM}
