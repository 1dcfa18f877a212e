"""Histograms on the lattice: count, merge, subtract, coarsen, read.

Counts are integers and the lattice is fixed, so merging is exact, in any order and grouping, and a later
cumulative histogram minus an earlier one is the histogram of what came between. A histogram of activations
occupies a few thousand cells, 12 bytes each; `bounded` caps them. Every function returns a new record and leaves its
arguments alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import replace
from functools import reduce

import numpy as np
import numpy.typing as npt

from geluwatch.core import lattice
from geluwatch.core.count import by_cell, sum_by_cell
from geluwatch.errors import LatticeError
from geluwatch.records import Histogram

MOST_BYTES = 1 << 16
"""Most memory of a bounded histogram's cells and counts."""

# Highest floors, as biased exponents, worth raising before the base is coarsened: the base's fine cells lie above them.
_LAST_FLOOR = {lattice.FINE_BITS: 121, lattice.SINGLE_BASE: 124, lattice.COARSE_BITS: lattice.HIGHEST_FLOOR}

# Least floor worth trying: below 2**-24 there are few values.
_FIRST_FLOOR = 103


def empty(bits: int = lattice.SINGLE_BITS) -> Histogram:
    """Return a histogram of nothing."""
    return Histogram(bits, np.empty(0, np.int32), np.empty(0, np.int64))


def from_values(values: npt.ArrayLike, dtype: str = "float32", *, finite: bool = False) -> Histogram:
    """Count values.

    Args:
        values: Any shape; taken as float32, in which every float16 and bfloat16 value is exact.
        dtype: The dtype the values had in the model; it decides the resolution.
        finite: Whether they are known to be finite, all of them.
    """
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    bits = lattice.bits_for(dtype)
    if finite or (known := np.isfinite(flat)).all():
        # Read off the values, not off the dtype: the two sides of a GELU may differ in dtype, and only one is reported.
        return Histogram(bits, *by_cell(flat, bits), lossless=lattice.on_lattice(flat, bits))
    kept, rest = flat[known], flat[~known]
    nan, posinf = int(np.isnan(rest).sum()), int((rest == np.inf).sum())
    return Histogram(bits, *by_cell(kept, bits), nan, posinf, rest.size - nan - posinf, lattice.on_lattice(kept, bits))


def coarsen(histogram: Histogram, bits: int = lattice.COARSE_BITS) -> Histogram:
    """Return the same counts on the finest lattice that both the histogram's and `bits` can be coarsened to.

    It stays lossless only if every value is a point of that lattice too.
    """
    to = lattice.meet(histogram.bits, bits)
    if to == histogram.bits:
        return histogram
    coarse = lattice.coarsen(histogram.cells, histogram.bits, to)
    lossless = histogram.lossless and bool((lattice.lower_edges(coarse, to) == lattice.lower_edges(histogram.cells, histogram.bits)).all())
    cells, counts = sum_by_cell(coarse, histogram.counts)
    return replace(histogram, bits=to, cells=cells, counts=counts, lossless=lossless)


def bounded(histogram: Histogram, most_bytes: int = MOST_BYTES) -> Histogram:
    """Return a histogram whose cells and counts take at most `most_bytes`: itself, or one on a coarser lattice.

    First the smallest magnitudes, where there are many cells and little mass, are coarsened, as few as it takes; where
    that is not enough, 19 and 24 bits are given up for 16. The result merges and subtracts like any other.

    Raises:
        LatticeError: Not even the coarsest lattice fits, which takes 48,972 bytes at most.
    """
    if _nbytes(histogram) <= most_bytes:
        return histogram
    base, floor = lattice.split(histogram.bits)
    for coarser in (base, lattice.COARSE_BITS):
        lattices = [lattice.compose(coarser, raised) for raised in range(max(floor, _FIRST_FLOOR), _LAST_FLOOR[coarser] + 1)]
        # A higher floor never takes more cells, so the lowest that fits is found by halving.
        at = bisect_left(lattices, True, key=lambda bits: _nbytes(coarsen(histogram, bits)) <= most_bytes)
        if at < len(lattices):
            return coarsen(histogram, lattices[at])
    least = _nbytes(coarsen(histogram, lattice.compose(lattice.COARSE_BITS, lattice.HIGHEST_FLOOR)))
    raise LatticeError(f"A histogram cannot be kept to {most_bytes} bytes: {least} is the least for this one.")


def _nbytes(histogram: Histogram) -> int:
    return histogram.cells.nbytes + histogram.counts.nbytes


def merge(parts: Iterable[Histogram]) -> Histogram:
    """Return the histogram of all parts together, on the finest lattice common to them; empty ones do not count for that."""
    filled = [part for part in parts if part.finite or part.nonfinite]
    if not filled:
        return empty()
    common = reduce(lattice.meet, (part.bits for part in filled))
    filled = [coarsen(part, common) for part in filled]
    cells, counts = sum_by_cell(np.concatenate([p.cells for p in filled]), np.concatenate([p.counts for p in filled]))
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
    """Return what `whole` counted beyond `part`, on the coarser of their lattices where only the floors differ.

    Raises:
        LatticeError: `part` was not counted within `whole`, or the bases differ.
    """
    if part.finite == part.nonfinite == 0:
        return whole
    bases = [lattice.split(histogram.bits)[0] for histogram in (whole, part)]
    if bases[0] != bases[1]:
        raise LatticeError(f"Cannot subtract a {bases[1]}-bit histogram from a {bases[0]}-bit one; coarsen both first.")
    whole, part = coarsen(whole, part.bits), coarsen(part, whole.bits)
    cells, counts = sum_by_cell(np.concatenate([whole.cells, part.cells]), np.concatenate([whole.counts, -part.counts]))
    nan, posinf, neginf = whole.nan - part.nan, whole.posinf - part.posinf, whole.neginf - part.neginf
    if (counts < 0).any() or min(nan, posinf, neginf) < 0:
        raise LatticeError("Cannot subtract: the second histogram holds values that the first never counted.")
    kept = counts > 0
    return Histogram(whole.bits, cells[kept], counts[kept], nan, posinf, neginf, whole.lossless)


def bucket_counts(histogram: Histogram, edges: tuple[float, ...]) -> tuple[int, ...]:
    """Return cumulative counts of values <= each edge, then of all but NaN, as Prometheus buckets want them.

    Exact for values on the lattice. For others a value that equals a positive edge to the last bit is counted one
    bucket higher, for a cell above zero starts at its lattice point.
    """
    ends = lattice.edge_cells(edges, histogram.bits, inclusive=histogram.lossless)
    running = np.concatenate([[0], np.cumsum(histogram.counts)])
    below = running[np.searchsorted(histogram.cells, ends, side="right")] + histogram.neginf
    return (*(int(count) for count in below), int(running[-1]) + histogram.neginf + histogram.posinf)
