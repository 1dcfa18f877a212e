"""The Kolmogorov-Smirnov distance of two histograms, as an interval that is certain to hold the exact one.

Let p and q be the shares of two samples in cells 1..k, P and Q their running sums, F and G the exact distribution
functions. Inside cell i, F lies between P[i-1] and P[i] and G between Q[i-1] and Q[i], so there
``|F - G| <= max(P[i] - Q[i-1], Q[i] - P[i-1])``; at the cell's end F - G is P[i] - Q[i] exactly. Hence

    max |P - Q|  <=  D  <=  max over i of max(P[i] - Q[i-1], Q[i] - P[i-1])  <=  lower end + max over i of min(p[i], q[i])

A cell that holds one value only has no inside: both distribution functions jump at once, and the second bound does
not apply. So it is with cell zero always, and with every cell where both histograms are lossless: then D is the lower
end. Infinities are mass points at either end; NaN is left out, as it has no place in an order.

Histograms of different lattices, a bounded one among them, are compared on the finest lattice common to both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from geluwatch.core import lattice
from geluwatch.core.histogram import coarsen
from geluwatch.records import Cells, Floats, Histogram, Interval, Ints


class Running(NamedTuple):
    """Two samples side by side: the `cells` (k,) that either occupies, and running shares (k + 2,) of both.

    The first running share is that after -Inf, the last that after +Inf.
    """

    cells: Cells
    left: Floats
    right: Floats
    bits: int
    lossless: bool


def distance(left: Histogram, right: Histogram) -> Interval:
    """Return bounds of the two-sample KS distance between the counted values.

    Both ends equal scipy's `ks_2samp(...).statistic` on the values themselves when both histograms are lossless on
    the same lattice; else the exact statistic lies between them.
    """
    return bounds(running(left, right))


def running(left: Histogram, right: Histogram) -> Running:
    """Return the running shares of two histograms over the cells of both; NaN where one side has no values."""
    if left.bits != right.bits:
        common = lattice.meet(left.bits, right.bits)
        left, right = coarsen(left, common), coarsen(right, common)
    joined = np.concatenate([left.cells, right.cells])
    order = np.argsort(joined, kind="stable")  # two ascending runs: merged in linear time
    ordered = joined.take(order)
    last = np.ones(ordered.size, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=last[:-1])
    ends = np.flatnonzero(last)
    from_left: Ints = np.cumsum(order < left.cells.size, dtype=np.int64).take(ends)
    shares = (_at_cells(left, from_left), _at_cells(right, ends + 1 - from_left))
    return Running(ordered.take(ends), *shares, left.bits, left.lossless and right.lossless)


def _at_cells(histogram: Histogram, passed: Ints) -> Floats:
    """Return running shares after -Inf, after the first `passed` (k,) of the histogram's cells, and after +Inf."""
    sums = np.empty(histogram.cells.size + 1)
    sums[0] = 0.0
    sums[1:] = np.cumsum(histogram.counts)
    if histogram.neginf:
        sums += histogram.neginf
    total = float(sums[-1]) + histogram.posinf
    shares = np.empty(passed.size + 2)
    shares[0], shares[1:-1], shares[-1] = sums[0], sums.take(passed), total
    shares /= total or np.nan
    return shares


def bounds(both: Running) -> Interval:
    """Return bounds of the KS distance between two samples' running shares."""
    p, q = both.left, both.right
    lower = float(np.abs(p - q).max())
    if both.lossless or np.isnan(lower):
        return Interval(lower, lower)
    inside = np.maximum(p[1:-1] - q[:-2], q[1:-1] - p[:-2])
    zero = np.searchsorted(both.cells, 0)
    if zero < both.cells.size and both.cells[zero] == 0:
        inside[zero] = 0.0
    return Interval(lower, float(inside.max(initial=lower)))
