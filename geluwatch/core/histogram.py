"""Histograms on the lattice: count, merge, subtract, coarsen, read.

Counts are integers and the lattice is fixed, so merging is exact, in any order and grouping, and a later
cumulative histogram minus an earlier one is the histogram of what came between. A histogram of activations
occupies a few thousand cells, 12 bytes each. Every function returns a new record and leaves its arguments alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from geluwatch.core import lattice
from geluwatch.errors import LatticeError
from geluwatch.records import Cells, Histogram, Ints

# Values counted at a time: bincount holds the interpreter lock, and 64 Ki values take about a quarter of a millisecond.
_CHUNK = 1 << 16


def empty(bits: int = lattice.COARSE_BITS) -> Histogram:
    """Return a histogram of nothing."""
    return Histogram(bits, np.empty(0, np.int32), np.empty(0, np.int64))


def from_values(values: npt.ArrayLike, dtype: str = "float32") -> Histogram:
    """Count values.

    Args:
        values: Any shape; taken as float32, in which every float16 and bfloat16 value is exact.
        dtype: The dtype the values had in the model; it decides the resolution.
    """
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    bits = lattice.bits_for(dtype)
    finite = np.isfinite(flat)
    if finite.all():
        # Read off the values, not off the dtype: the two sides of a GELU may differ in dtype, and only one is reported.
        return Histogram(bits, *_count(flat, bits), lossless=lattice.on_lattice(flat, bits))
    kept, rest = flat[finite], flat[~finite]
    nan, posinf = int(np.isnan(rest).sum()), int((rest == np.inf).sum())
    return Histogram(bits, *_count(kept, bits), nan, posinf, rest.size - nan - posinf, lattice.on_lattice(kept, bits))


def _count(values: npt.NDArray[np.float32], bits: int) -> tuple[Cells, Ints]:
    """Return the occupied cells and their counts of finite values.

    Many values are counted by their leading bits as they stand, and only the occupied patterns are turned into cells:
    an order of magnitude quicker than turning every value into a cell.
    """
    if values.size < 1024:
        cells, counts = np.unique(lattice.cells_of(values, bits), return_counts=True)
        return cells, counts.astype(np.int64)
    patterns = np.zeros(1 << bits, np.int64)
    for start in range(0, values.size, max(_CHUNK, 1 << bits)):
        chunk = values[start : start + max(_CHUNK, 1 << bits)].view(np.uint32)
        patterns += np.bincount(chunk >> np.uint32(32 - bits), minlength=1 << bits)
    # The first pattern of either sign holds zero and the smallest subnormals; these few are told apart one by one.
    signs = 1 << (bits - 1)
    if patterns[0] or patterns[signs]:
        patterns[[0, signs]] = 0
        smallest = values[(values.view(np.uint32) & np.uint32(0x7FFFFFFF)) >> np.uint32(32 - bits) == 0]
        near_zero = np.unique(lattice.cells_of(smallest, bits), return_counts=True)
    else:
        near_zero = (np.empty(0, np.int32), np.empty(0, np.int64))
    occupied = np.flatnonzero(patterns)
    cells = np.where(occupied < signs, occupied + 1, signs - 1 - occupied).astype(np.int32)
    return _sum_by_cell(np.concatenate([cells, near_zero[0]]), np.concatenate([patterns[occupied], near_zero[1]]))


def coarsen(histogram: Histogram) -> Histogram:
    """Return the same counts at 16 bits; lossless only if it was at 16 bits before."""
    if histogram.bits == lattice.COARSE_BITS:
        return histogram
    cells, counts = _sum_by_cell(lattice.coarsen(histogram.cells), histogram.counts)
    return replace(histogram, bits=lattice.COARSE_BITS, cells=cells, counts=counts, lossless=False)


def merge(parts: Iterable[Histogram]) -> Histogram:
    """Return the histogram of all parts together, at the coarsest resolution among them; empty ones do not count for that."""
    filled = [part for part in parts if part.finite or part.nonfinite]
    if not filled:
        return empty()
    if len({part.bits for part in filled}) > 1:
        filled = [coarsen(part) for part in filled]
    cells, counts = _sum_by_cell(np.concatenate([p.cells for p in filled]), np.concatenate([p.counts for p in filled]))
    return Histogram(
        filled[0].bits,
        cells,
        counts,
        nan=sum(part.nan for part in filled),
        posinf=sum(part.posinf for part in filled),
        neginf=sum(part.neginf for part in filled),
        lossless=all(part.lossless for part in filled),
    )


def subtract(whole: Histogram, part: Histogram) -> Histogram:
    """Return what `whole` counted beyond `part`.

    Raises:
        LatticeError: `part` was not counted within `whole`, or the resolutions differ.
    """
    if part.finite == part.nonfinite == 0:
        return whole
    if whole.bits != part.bits:
        raise LatticeError(f"Cannot subtract a {part.bits}-bit histogram from a {whole.bits}-bit one; coarsen both first.")
    cells, counts = _sum_by_cell(np.concatenate([whole.cells, part.cells]), np.concatenate([whole.counts, -part.counts]))
    nan, posinf, neginf = whole.nan - part.nan, whole.posinf - part.posinf, whole.neginf - part.neginf
    if (counts < 0).any() or min(nan, posinf, neginf) < 0:
        raise LatticeError("Cannot subtract: the second histogram holds values that the first never counted.")
    kept = counts > 0
    return Histogram(whole.bits, cells[kept], counts[kept], nan, posinf, neginf, whole.lossless)


def _sum_by_cell(cells: Cells, counts: Ints) -> tuple[Cells, Ints]:
    """Return distinct cells ascending, with their counts added up in integers."""
    if cells.size == 0:
        return cells, counts
    order = np.argsort(cells, kind="stable")
    ordered = cells[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return ordered[starts], np.add.reduceat(counts[order], starts)


def bucket_counts(histogram: Histogram, edges: tuple[float, ...]) -> tuple[int, ...]:
    """Return cumulative counts of values <= each edge, then of all but NaN, as Prometheus buckets want them.

    Exact for values on the lattice. For others a value that equals a positive edge to the last bit is counted one
    bucket higher, for a cell above zero starts at its lattice point.
    """
    ends = lattice.edge_cells(edges, histogram.bits, inclusive=histogram.lossless)
    running = np.concatenate([[0], np.cumsum(histogram.counts)])
    below = running[np.searchsorted(histogram.cells, ends, side="right")] + histogram.neginf
    return (*(int(count) for count in below), int(running[-1]) + histogram.neginf + histogram.posinf)
