"""The counting loop: whatever way is taken, the counts are those of counting values one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import ndtr

from geluwatch.core import count, lattice

BITS = (lattice.COARSE_BITS, lattice.FINE_BITS, lattice.SINGLE_BITS)


def one_by_one(values: np.ndarray, bits: int) -> tuple[list[int], list[int]]:
    """Cells and counts by np.unique."""
    cells, counts = np.unique(lattice.cells_of(values, bits), return_counts=True)
    return cells.tolist(), counts.tolist()


def counted(values: np.ndarray, bits: int) -> tuple[list[int], list[int]]:
    """Cells and counts as lists."""
    cells, counts = count.by_cell(values, bits)
    assert (np.int32, np.int64) == (cells.dtype, counts.dtype)
    return cells.tolist(), counts.tolist()


def awkward(size: int) -> np.ndarray:
    """Values before a GELU and after it, zeros of both signs, subnormals, the extremes and the ends of the deep cells."""
    rng = np.random.default_rng(size)
    special = np.array([0.0, -0.0, 1e-42, -1e-42, 1e-39, 3e38, -3e38, -0.15625, -0.171875, 0.16, np.nextafter(np.float32(-0.15625), 0)])
    drawn = rng.normal(-0.5, 1, size)
    values = np.where(rng.random(size) < 0.5, drawn, drawn * ndtr(drawn))
    return np.where(rng.random(size) < 0.2, rng.choice(special, size), values).astype(np.float32)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 131_071, 131_072, 131_073, 524_287, 524_289])
def test_chunked_counting_equals_unique(size: int, bits: int) -> None:
    """Around the sizes at which the way of counting changes, the counts are np.unique's."""
    values = awkward(size)
    assert one_by_one(values, bits) == counted(values, bits)


@pytest.mark.parametrize("bits", BITS)
@given(values=hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_many_values_are_counted_like_few(bits: int, values: np.ndarray) -> None:
    """Any values repeated until the quick way of counting is taken have their counts multiplied, and nothing else changed."""
    times = 8192 // values.size + 1
    cells, counts = counted(values, bits)
    assert (cells, [times * one for one in counts]) == counted(np.tile(values, times), bits)


def test_counting_leaves_its_values_alone() -> None:
    """A read-only array can be counted."""
    values = awkward(20_000)
    values.setflags(write=False)
    assert int(count.by_cell(values, lattice.SINGLE_BITS)[1].sum()) == 20_000


@given(cells=st.lists(st.integers(-50, 50), max_size=40))
def test_counts_of_one_cell_are_added(cells: list[int]) -> None:
    """Cells come out ascending and once each, with the sums of their counts."""
    numbers = np.arange(1, len(cells) + 1, dtype=np.int64)
    distinct, sums = count.sum_by_cell(np.array(cells, np.int32), numbers)
    expected = {cell: sum(k for k, other in enumerate(cells, 1) if other == cell) for cell in sorted(cells)}
    assert expected == dict(zip(distinct.tolist(), sums.tolist(), strict=True))
    assert sorted(expected) == distinct.tolist()
