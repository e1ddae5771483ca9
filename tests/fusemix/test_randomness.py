from __future__ import annotations

import torch

from fusemix.randomness import derive_seed, generator


def test_a_seed_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert derive_seed(0, "order", 3) == 3421225812864122905


def test_every_coordinate_and_its_place_and_type_count() -> None:
    coordinates: list[tuple[int | str, ...]] = [(1, 2), (2, 1), (12,), (1, 2, 0), ("1", 2), ("12",), (1,), ()]
    assert len({derive_seed(*c) for c in coordinates}) == len(coordinates)


def test_seeds_fit_torch_and_numpy() -> None:
    assert all(0 <= derive_seed(i) < 2**63 for i in range(1000))


def test_equal_coordinates_give_equal_numbers() -> None:
    first, second, other = (torch.rand(8, generator=generator(0, "rows", step)) for step in (4, 4, 5))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    torch.rand(3, generator=generator(1))
    assert torch.equal(torch.random.get_rng_state(), before)
