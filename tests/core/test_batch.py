"""Rows that wait to be counted together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.core.batch import LONGEST_WAIT, WORTH_COUNTING, Batch
from geluwatch.records import Rows

ROW = 2 * 4 * 8
"""Bytes of one row of eight channels, both sides."""


def rows(count: int) -> tuple[Rows, ...]:
    """Return so many rows in one piece."""
    return (Rows("act", "float32", np.zeros((count, 8), np.float32), np.zeros((count, 8), np.float32)),)


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 60))
def test_nothing_is_lost_or_given_twice_and_no_more_waits_than_may(sizes: list[int], most: int) -> None:
    """Whatever comes, taken whenever it is due, is given once and in order, and less than the limit is left waiting."""
    batch, given_out, waiting = Batch(most * ROW), [], 0
    for size in sizes:
        batch.add(rows(size), 0.0)
        waiting += size
        assert batch.is_due(0.0) == (waiting >= most)
        if batch.is_due(0.0):
            given_out += [len(piece.pre) for piece in batch.take()]
            waiting = 0
    assert sizes == given_out + [len(piece.pre) for piece in batch.take()]
    assert () == batch.take()


def test_the_oldest_row_sets_the_time() -> None:
    """Rows are due when the first of them has waited for its time, however lately others came."""
    batch = Batch(1 << 20)
    batch.add(rows(1), 100.0)
    batch.add(rows(1), 100.0 + LONGEST_WAIT - 1.0)
    assert not batch.is_due(100.0 + LONGEST_WAIT - 0.5)
    assert batch.is_due(100.0 + LONGEST_WAIT)
    batch.take()
    batch.add(rows(1), 200.0)
    assert not batch.is_due(200.0)


@pytest.mark.parametrize("most", [WORTH_COUNTING, 1 << 40])
def test_however_much_may_wait_eight_megabytes_are_counted(most: int) -> None:
    """A larger allowance is not used: the fixed costs of counting are small by then."""
    batch = Batch(most)
    batch.add(rows(WORTH_COUNTING // ROW - 1), 0.0)
    assert not batch.is_due(0.0)
    batch.add(rows(1), 0.0)
    assert batch.is_due(0.0)
