"""Histograms on the lattice as shares of equal bins, fit for drawing."""

from __future__ import annotations

import numpy as np

from geluwatch.core import lattice
from geluwatch.records import Floats, Histogram

_TAIL = 0.0005


def edges(histograms: list[Histogram], bins: int) -> Floats:
    """Return (bins + 1,) equal edges from the lowest to the highest value of the histograms but their outermost .05 % on each side."""
    ends = [_quantiles(each) for each in histograms if each.finite]
    low = min((end[0] for end in ends), default=0.0)
    high = max((end[1] for end in ends), default=1.0)
    if not low < high:
        low, high = low - 0.5, high + 0.5
    margin = 0.02 * (high - low)
    return np.linspace(low - margin, high + margin, bins + 1)


def _quantiles(histogram: Histogram) -> tuple[float, float]:
    low, high = _extents(histogram)
    running = np.cumsum(histogram.counts) / histogram.finite
    at = [min(int(np.searchsorted(running, share)), low.size - 1) for share in (_TAIL, 1.0 - _TAIL)]
    return float(low[at[0]]), float(high[at[1]])


def _extents(histogram: Histogram) -> tuple[Floats, Floats]:
    """Return where cells begin and end, in the order of their values."""
    inner = lattice.lower_edges(histogram.cells, histogram.bits)
    outer = 2.0 * lattice.midpoints(histogram.cells, histogram.bits) - inner
    return np.minimum(inner, outer), np.maximum(inner, outer)


def shares(histogram: Histogram, edges: Floats) -> Floats:
    """Return the share (bins,) of the finite values between neighbouring edges; those of one cell lie spread over it evenly."""
    if not histogram.finite:
        return np.zeros(edges.size - 1)
    running = np.concatenate([[0], np.cumsum(histogram.counts)]) / histogram.finite
    at = np.stack(_extents(histogram), axis=1).reshape(-1)
    below = np.stack([running[:-1], running[1:]], axis=1).reshape(-1)
    return np.diff(np.interp(edges, at, below, left=0.0, right=1.0))
