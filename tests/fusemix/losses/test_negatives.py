from __future__ import annotations

import torch

from fusemix.losses.negatives import Layout, lay_out

CPU = torch.device("cpu")


def entries(layout: Layout, rows: slice, columns: slice) -> set[tuple[int, int]]:
    found = layout.false_negatives(rows, columns)
    return set() if found is None else {(int(i), int(j)) for i, j in found}


def test_pairs_come_first_and_absent_rows_not_at_all() -> None:
    has_u = torch.tensor([True, False, True, True, False])
    has_v = torch.tensor([False, True, True, True, False])
    layout = lay_out(5, CPU, has_u, has_v, None, None)
    assert layout.pairs == 2
    assert layout.u_order.tolist() == [2, 3, 0]
    assert layout.v_order.tolist() == [2, 3, 1]


def test_contents_that_differ_cost_nothing() -> None:
    assert lay_out(4, CPU, None, None, torch.arange(4), torch.arange(4)).shared == ()
    assert lay_out(2, CPU, None, None, torch.tensor([[5, 5], [1, 2]]), None).shared == ()


def test_false_negatives_are_relative_to_the_tile_and_spare_the_positives() -> None:
    layout = lay_out(4, CPU, None, None, torch.tensor([9, 1, 9, 9]), None)
    assert entries(layout, slice(0, 4), slice(0, 4)) == {(0, 2), (0, 3), (2, 0), (2, 3), (3, 0), (3, 2)}
    assert entries(layout, slice(2, 4), slice(2, 4)) == {(0, 1), (1, 0)}
    assert entries(layout, slice(0, 2), slice(2, 4)) == {(0, 0), (0, 1)}
    assert layout.false_negatives(slice(1, 2), slice(0, 4)) is None


def test_equal_content_on_either_side_counts() -> None:
    layout = lay_out(3, CPU, None, None, torch.tensor([1, 1, 2]), torch.tensor([3, 4, 4]))
    assert entries(layout, slice(0, 3), slice(0, 3)) == {(0, 1), (1, 0), (1, 2), (2, 1)}


def test_content_of_an_absent_row_is_unknown() -> None:
    has_u = torch.tensor([True, False, True])
    layout = lay_out(3, CPU, has_u, None, torch.tensor([1, 1, 2]), None)
    assert entries(layout, slice(0, 2), slice(0, 3)) == set()


def test_partnerless_row_beyond_the_pairs_is_no_positive_of_the_column_at_its_place() -> None:
    # Item 1 has u only and item 2 has v only: both stand at place 1 of their orders.
    has_u, has_v = torch.tensor([True, True, False]), torch.tensor([True, False, True])
    layout = lay_out(3, CPU, has_u, has_v, torch.tensor([5, 5, 0]), None)
    assert layout.u_order.tolist() == [0, 1]
    assert entries(layout, slice(0, 2), slice(0, 2)) == {(1, 0)}


def test_items_that_share_one_of_two_parents() -> None:
    layout = lay_out(3, CPU, None, None, torch.tensor([[1, 2], [3, 1], [4, 5]]), None)
    assert entries(layout, slice(0, 3), slice(0, 3)) == {(0, 1), (1, 0)}
