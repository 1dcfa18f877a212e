"""Counting values by cell: the loop over every value that is counted, in a few vector operations a chunk.

Values are counted by leading bits of their patterns as they stand, and only occupied patterns turned into cells: an
order of magnitude quicker than turning every value into a cell. The few values that such a count cannot tell apart
are picked out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geluwatch.core import lattice
from geluwatch.records import Cells, Ints

Singles = npt.NDArray[np.float32]
Patterns = npt.NDArray[np.uint32]

# Values counted at a time: bincount holds the interpreter lock, and 128 Ki values take about a fifth of a millisecond.
_CHUNK = 1 << 17

# Up to this many values, sorting them costs less than scanning a dense count.
_FEW = 1 << 13

# The cells where a GELU's outputs pile up are counted apart, by the bits that follow the leading 16.
_DEEP_FIRST = np.uint32(lattice.DEEP[0] << 16)
_DEEP_SIZE = np.uint32((lattice.DEEP[1] - lattice.DEEP[0]) << 16)
_DEEP_SHIFT = np.uint32(32 - lattice.DEEP_BITS)


def by_cell(values: Singles, bits: int) -> tuple[Cells, Ints]:
    """Return the occupied cells, ascending, and their counts.

    Args:
        values: Flat, finite.
        bits: One of the lattices of `lattice.bits_for`.
    """
    if values.size < _FEW:
        cells, counts = np.unique(lattice.cells_of(values, bits), return_counts=True)
        return cells, counts.astype(np.int64)
    kept = lattice.COARSE_BITS if bits == lattice.SINGLE_BITS else bits
    patterns, counts = _patterns(values.view(np.uint32), kept, has_deep=bits == lattice.SINGLE_BITS)
    return sum_by_cell(lattice.cells_of(patterns.view(np.float32), bits), counts)


def sum_by_cell(cells: Cells, counts: Ints) -> tuple[Cells, Ints]:
    """Return distinct cells ascending, with their counts added up in integers."""
    if cells.size == 0:
        return cells, counts
    order = np.argsort(cells, kind="stable")  # ascending runs are merged in linear time
    ordered = cells[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return ordered[starts], np.add.reduceat(counts[order], starts)


def _patterns(values: Patterns, kept: int, *, has_deep: bool) -> tuple[Patterns, Ints]:
    """Return patterns, one a cell or a value, and their counts, told apart by `kept` leading bits and the deep ones by more."""
    dense = np.zeros(1 << kept, np.int64)
    deep = np.zeros(int(_DEEP_SIZE >> _DEEP_SHIFT), np.int64)
    chunk = max(_CHUNK, dense.size)
    for start in range(0, values.size, chunk):
        part = values[start : start + chunk]
        counts = np.bincount(part >> np.uint32(32 - kept))
        dense[: counts.size] += counts
        if has_deep:
            inside = part - _DEEP_FIRST
            inside = inside.take(np.flatnonzero(inside < _DEEP_SIZE))  # by index: a mask stalls on values in random order
            deep += np.bincount(inside >> _DEEP_SHIFT, minlength=deep.size)
    if has_deep:
        dense[lattice.DEEP[0] : lattice.DEEP[1]] = 0
    near_zero = _near_zero(values, dense, kept)
    occupied, deeper = np.flatnonzero(dense != 0), np.flatnonzero(deep)
    patterns = [
        occupied.astype(np.uint32) << np.uint32(32 - kept),
        (deeper.astype(np.uint32) << _DEEP_SHIFT) + _DEEP_FIRST,
        near_zero,
    ]
    return np.concatenate(patterns), np.concatenate([dense[occupied], deep[deeper], np.ones(near_zero.size, np.int64)])


def _near_zero(values: Patterns, dense: Ints, kept: int) -> Patterns:
    """Return zeros and the smallest subnormals, which share the first pattern of either sign, and take them off the dense count."""
    signs = dense.size // 2
    if not dense[0] and not dense[signs]:
        return np.empty(0, np.uint32)
    dense[[0, signs]] = 0
    near_zero: Patterns = values.take(np.flatnonzero((values & np.uint32(0x7FFFFFFF)) < np.uint32(1 << (32 - kept))))
    return near_zero
