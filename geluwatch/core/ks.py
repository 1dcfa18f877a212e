"""The Kolmogorov-Smirnov distance of two histograms, as an interval that is certain to hold the exact one.

Let p and q be the shares of two samples in cells 1..k, P and Q their running sums, F and G the exact distribution
functions. Inside cell i, F lies between P[i-1] and P[i] and G between Q[i-1] and Q[i], so there
``|F - G| <= max(P[i] - Q[i-1], Q[i] - P[i-1])``; at the cell's end F - G is P[i] - Q[i] exactly. Hence

    max |P - Q|  <=  D  <=  max over i of max(P[i] - Q[i-1], Q[i] - P[i-1])  <=  lower end + max over i of min(p[i], q[i])

A cell that holds one value only has no inside: both distribution functions jump at once, and the second bound does
not apply. So it is with cell zero always, and with every cell where both histograms are lossless: then D is the lower
end. Infinities are mass points at either end; NaN is left out, as it has no place in an order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from geluwatch.core.histogram import coarsen
from geluwatch.records import Cells, Floats, Histogram


class Interval(NamedTuple):
    """Certified bounds of a distance; NaN where one side has no values."""

    lower: float
    upper: float


def distance(left: Histogram, right: Histogram) -> Interval:
    """Return bounds of the two-sample KS distance between the counted values.

    Both ends equal scipy's `ks_2samp(...).statistic` on the values themselves when both histograms are lossless at
    the same resolution; else the exact statistic lies between them.
    """
    if left.bits != right.bits:
        left, right = coarsen(left), coarsen(right)
    if min(left.finite + left.posinf + left.neginf, right.finite + right.posinf + right.neginf) == 0:
        return Interval(float("nan"), float("nan"))
    cells = np.union1d(left.cells, right.cells)
    p, q = _running(left, cells), _running(right, cells)
    lower = float(np.abs(p - q).max())
    if left.lossless and right.lossless:
        return Interval(lower, lower)
    inside = np.maximum(p[1:-1] - q[:-2], q[1:-1] - p[:-2])[cells != 0]
    return Interval(lower, float(inside.max(initial=lower)))


def _running(histogram: Histogram, cells: Cells) -> Floats:
    """Return running shares: after -Inf, after each of `cells`, after +Inf."""
    counts = np.zeros(cells.size + 2, np.int64)
    counts[0], counts[-1] = histogram.neginf, histogram.posinf
    counts[1 + np.searchsorted(cells, histogram.cells)] = histogram.counts
    shares: Floats = np.cumsum(counts) / counts.sum()
    return shares
