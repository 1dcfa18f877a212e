"""The statistics panel of one window against its baseline at one (layer, point): how far, where, and in which way.

Everything comes from two histograms and two sets of channel moments. Counts at cell edges are exact, so the shares of
gates, zeros and tails are, and the KS distance is certified. Only the Wasserstein distance, where values lie between
lattice points, takes a cell's middle for them, each of which is off by 2**-8 of its magnitude at most (2**-4 below the
lattice's floor).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from geluwatch.core import ks, lattice, moments
from geluwatch.core.histogram import coarsen
from geluwatch.records import Cells, Floats, Histogram, Interval, Moments, Panel, Point, PointWindow

GATE = 3.0
"""Magnitude before a GELU from which the gate counts as closed (negative) or open (positive): it lets through below
0.14 %, or all but that."""

_TAIL = 0.001

# Half a count a bin, as Jeffreys' prior has it, keeps the logarithm of an empty bin finite.
_SMOOTHING = 0.5

_UNKNOWN = float("nan")


@dataclass(frozen=True, slots=True)
class Reference:
    """A baseline at one (layer, point), prepared for many windows."""

    point: Point
    histogram: Histogram
    moments: Moments
    mean: float
    std: float
    edges: Cells
    """Last cells of: the lower tail, all but the upper tail, then of each decile but the last, doubles left out."""
    deciles: Floats
    """The baseline's smoothed shares between the decile edges."""


def prepare(baseline: PointWindow, point: Point) -> Reference:
    """Return a baseline's pooled statistics, prepared for `measure`."""
    counted = baseline.histogram
    mean, std = moments.pooled(baseline.moments)
    total = counted.finite + counted.posinf + counted.neginf
    edges, shares = np.empty(0, np.int32), np.empty(0)
    if counted.cells.size:
        sums = counted.neginf + np.cumsum(counted.counts)
        lower = np.searchsorted(sums, _TAIL * total, side="right") - 1
        upper = int(np.searchsorted(sums, (1.0 - _TAIL) * total))
        deciles = np.unique(np.minimum(np.searchsorted(sums, np.arange(1, 10) * total / 10), sums.size - 1))
        below = counted.cells[0] - 1 if lower < 0 else counted.cells[lower]
        edges = np.array([below, counted.cells[min(upper, sums.size - 1)], *counted.cells[deciles]], np.int32)
        shares = _smoothed(np.diff(sums[deciles], prepend=0, append=total).astype(np.float64))
    return Reference(point, counted, baseline.moments, mean, std, edges, shares)


def _smoothed(counts: Floats) -> Floats:
    shares: Floats = (counts + _SMOOTHING) / (counts.sum() + _SMOOTHING * counts.size)
    return shares


def measure(reference: Reference, window: PointWindow) -> Panel:
    """Return the panel of a window against its reference."""
    counted = window.histogram
    common = lattice.meet(reference.histogram.bits, counted.bits)
    if common != reference.histogram.bits:
        coarse = coarsen(reference.histogram, common)
        reference = prepare(PointWindow(coarse, reference.moments), reference.point)
    total = counted.finite + counted.posinf + counted.neginf
    if not total or not reference.edges.size:
        return Panel(Interval(_UNKNOWN, _UNKNOWN), _UNKNOWN, 0, *[_UNKNOWN] * 8)
    both = ks.running(counted, reference.histogram)
    middles = (lattice.lower_edges if both.lossless else lattice.midpoints)(both.cells, both.bits)
    location, sign = _farthest(both, middles)
    mean, std = moments.pooled(window.moments)
    below = both.left.take(both.cells.searchsorted(reference.edges, side="right"))
    closed, opened, zeros = _gates(counted, total)
    return Panel(
        ks.bounds(both),
        location,
        sign,
        _over(_wasserstein(both, middles), reference.std),
        _over(mean - reference.mean, reference.std),
        _log_ratio(std, reference.std),
        float(below[0] + 1.0 - below[1]),
        closed if reference.point == "pre" else _UNKNOWN,
        opened if reference.point == "pre" else _UNKNOWN,
        zeros,
        _psi(below[2:] * total, total, reference.deciles),
    )


def _farthest(both: ks.Running, middles: Floats) -> tuple[float, int]:
    """Return where the distribution functions differ most, and 1 where the left sample lies above the right one there."""
    gap = both.right - both.left
    at = int(np.abs(gap).argmax())
    value = -math.inf if at == 0 else float(middles[min(at, middles.size) - 1]) if middles.size else math.inf
    return value, int(np.sign(gap[at]))


def _wasserstein(both: ks.Running, middles: Floats) -> float:
    """Return the area between the two distribution functions of finite values (Vallender, 1974)."""
    left, right = (_finite_shares(shares) for shares in (both.left, both.right))
    if middles.size < 2:
        return 0.0 if middles.size else _UNKNOWN
    return float(np.einsum("i,i->", np.abs(left[:-1] - right[:-1]), np.diff(middles)))  # not a dot: BLAS would start threads


def _finite_shares(shares: Floats) -> Floats:
    """Return running shares after each cell, of the finite values alone."""
    inside, first, last = shares[1:-1], shares[0], shares[-2]
    if first == 0.0 and last == 1.0:
        return inside
    return (inside - first) / (last - first) if last > first else np.full(inside.size, _UNKNOWN)


def _gates(counted: Histogram, total: int) -> tuple[float, float, float]:
    """Return the shares of values <= -3, >= 3 and equal to 0; a cell starts at its lattice point, so all are exact."""
    ends = counted.cells.searchsorted(_gate_cells(counted.bits))
    closed = int(counted.counts[: ends[0]].sum()) + counted.neginf
    opened = int(counted.counts[ends[3] :].sum()) + counted.posinf
    return closed / total, opened / total, int(counted.counts[ends[1] : ends[2]].sum()) / total


@lru_cache(maxsize=32)
def _gate_cells(bits: int) -> Cells:
    """Return the first cells past the closed gate, of zero, past zero, and of the open gate."""
    closed, zero, opened = lattice.edge_cells((-GATE, 0.0, GATE), bits, inclusive=True).tolist()
    return np.array([closed + 1, zero, zero + 1, opened], np.int32)


def _psi(below: Floats, total: int, expected: Floats) -> float:
    """Return sum of (now - then) ln(now / then) over the baseline's deciles (Jeffreys, 1946), of smoothed shares."""
    now = _smoothed(np.diff(below, prepend=0.0, append=float(total)))
    return float(((now - expected) * np.log(now / expected)).sum())


def _over(difference: float, scale: float) -> float:
    return difference / scale if scale > 0.0 else math.copysign(math.inf, difference) if difference else difference


def _log_ratio(now: float, then: float) -> float:
    if now == then or math.isnan(now + then):
        return now - then
    return math.log(now / then) if now > 0.0 and then > 0.0 else math.copysign(math.inf, now - then)
