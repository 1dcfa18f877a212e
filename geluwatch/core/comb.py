"""Combs: histograms whose values have fallen on a coarser grid, as rounding to a lower precision makes them.

A floating-point format with fewer fraction bits leaves only every 2**k-th lattice point occupied. Of values spread over
cells smoothly about one in 2**k lies in such a cell; of rounded ones all do. Uniform grids, of integer formats, have no
such pattern, but leave most of the cells empty that the baseline fills.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from geluwatch.core import ks, lattice
from geluwatch.core.histogram import coarsen
from geluwatch.records import Floats, Histogram

# Enough values to tell a comb from chance.
_LEAST_VALUES = 64

# Enough cells: one level of a uniform grid lies on some floating-point grid by chance.
_LEAST_CELLS = 5

# Share of values on the coarse grid that makes a comb.
_ON_GRID = 0.98

# Magnitude from which fp8's formats have their normal spacing.
_NORMAL = 2.0**-6

# Numbers of values at which the cells they fill are worked out beforehand.
_COUNTS = 2.0 ** np.arange(6, 31)

# Share of the cells to be expected below which a window is looked at closely: a grid of half the points fills half of them.
_FEWER = 0.55

_FORMATS = {3: " (as fp8 e5m2 does)", 4: " (as fp8 e4m3 does)", 8: " (as bfloat16 does)", 11: " (as float16 does)"}


class Grid(NamedTuple):
    """A coarser grid: significant bits (0 for a uniform one), the format alike, shares of values on it and expected there."""

    significant: int
    like: str
    share: float
    expected: float


def coarser_grid(then: Histogram, now: Histogram) -> Grid | None:
    """Return the grid that the second histogram's values have fallen on since the first, or None."""
    then, now = coarsen(then, now.bits), coarsen(now, then.bits)  # a coarser lattice on one side only looks like a comb
    base, _ = lattice.split(then.bits)
    single = base == lattice.SINGLE_BASE
    for kept in range(10, lattice.DEEP_BITS if single else base):
        deep = single and kept >= lattice.COARSE_BITS
        before, after = _on_grid(then, kept, deep=deep), _on_grid(now, kept, deep=deep)
        if after >= _ON_GRID and before <= 0.75:
            return Grid(kept - 8, _FORMATS.get(kept - 8, ""), after, before)
    return _uniform(then, now)


def filling(then: Histogram) -> Floats:
    """Return how many cells the baseline's values would fill, for numbers of them from 64 in powers of two."""
    empty = np.log1p(-np.minimum(then.counts / max(then.finite, 1), 1.0 - 1e-12))
    return np.array([-np.expm1(count * empty).sum() for count in _COUNTS])


def fallen(then: Histogram, filled: Floats, now: Histogram) -> Grid | None:
    """Return the floating-point grid that a window's values have fallen on, if they fill far fewer cells than the baseline's would.

    It is never chance: 98 values of a hundred on every second point. Uniform grids are left out: a window of the same few rows over
    and over leaves cells empty as well.

    Args:
        then: The baseline.
        filled: What `filling` made of it.
        now: The window.
    """
    if now.cells.size > _FEWER * np.interp(np.log(max(now.finite, 1)), np.log(_COUNTS), filled):
        return None
    found = coarser_grid(then, now)
    return found if found is not None and found.significant else None


def _on_grid(counted: Histogram, kept: int, *, deep: bool) -> float:
    """Return the share of values in cells that hold a point of `kept` leading bits; NaN for too few values or cells.

    Looked at are values of normal size, or, for grids finer than 16 bits, those where float32's lattice is finer still.
    """
    points = lattice.lower_edges(counted.cells, counted.bits).astype(np.float32)
    patterns = points.view(np.uint32)
    leading = patterns >> np.uint32(16)
    inside = (leading >= lattice.DEEP[0]) & (leading < lattice.DEEP[1]) if deep else np.abs(points) >= _NORMAL
    counts = counted.counts[inside]
    total = int(counts.sum())
    on = patterns[inside] & np.uint32((1 << (32 - kept)) - 1) == 0
    return int(counts[on].sum()) / total if total >= _LEAST_VALUES and counts.size >= _LEAST_CELLS else float("nan")


def _uniform(then: Histogram, now: Histogram) -> Grid | None:
    """Look for emptied cells in the middle of the distribution, where the baseline would put eight values or more."""
    both = ks.running(now, then)
    seen, expected = np.diff(both.left[:-1]) * now.finite, np.diff(both.right[:-1]) * now.finite
    middle = (both.left[1:-1] > 0.05) & (both.left[1:-1] < 0.95) & (expected >= 8.0)
    if middle.sum() < _LEAST_VALUES or (filled := float((seen[middle] > 0.5).mean())) > 0.5:
        return None
    return Grid(0, "", 1.0, filled)
