"""Scratch values are checked first, and written for the rows that take part."""

from types import SimpleNamespace

import pytest
import torch

from dlm.core import Entries
from dlm.decode.apply import check_scratch, write_scratch


def group_of(active, **scratch):
    return SimpleNamespace(active=torch.tensor(active), rows=SimpleNamespace(scratch=scratch))


def test_rows_that_have_ended_keep_theirs():
    """The last column of each row is spare."""
    row, token, wide = torch.zeros(3), torch.zeros(3, 5).long(), torch.zeros(3, 5, 2)
    group = group_of([True, False, True], row=row, token=token, wide=wide)
    at = torch.tensor([1, 6, 12])  # column 1, 1 and 2
    new = {
        "row": torch.tensor([4.0, 5.0, 6.0]),
        "token": Entries(at, torch.tensor([7, 8, 9])),
        "wide": Entries(at, torch.arange(1.0, 7).view(3, 2)),
    }
    writes = check_scratch(group, new)
    assert not any(t.any() for t in (row, token, wide)), "nothing is written before its time"
    write_scratch(writes)
    assert row.tolist() == [4.0, 0.0, 6.0]
    assert token[:, :4].tolist() == [[0, 7, 0, 0], [0] * 4, [0, 0, 9, 0]]
    assert wide[:, :4].flatten(1).nonzero().tolist() == [[0, 2], [0, 3], [2, 4], [2, 5]]
    assert wide[2, 2].tolist() == [5.0, 6.0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3, 4), r"must have shape \[3, 5\], got \[3, 4\]"),
        (Entries(torch.tensor([1, 2]), torch.zeros(3)), r"must have shape \[2\], got \[3\]"),
    ],
)
def test_other_shapes_are_errors(value, message):
    with pytest.raises(ValueError, match=message):
        check_scratch(group_of([True] * 3, token=torch.zeros(3, 5)), {"token": value})


def test_nothing_to_keep():
    write_scratch(check_scratch(group_of([True]), {}))
