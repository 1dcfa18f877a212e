"""Faults so gross that they need no baseline: a dead layer, and values that no GELU gives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from geluwatch.core import lattice, moments
from geluwatch.records import Gross, Histogram, PointKey, PointWindow, Site

# Below the minimum of every form: -0.16997 (erf), -0.17004 (tanh), -0.1687 (quick), and what rounding to bfloat16 makes of them.
_FLOOR = -0.171875

# The magnitude of a GELU's output at -3, where the gate has closed.
_CLOSED = 0.00405


def faults(points: Mapping[PointKey, PointWindow], sites: tuple[Site, ...], minimum_rows: int) -> dict[PointKey, Gross]:
    """Return what is grossly wrong in a window, by (layer, point); a layer with fewer rows than the minimum is not looked at.

    A layer is dead when its gates are closed for all values, or when it gives one and the same row while another layer
    does not (where all do, it is the input that never changes). A site whose declared variant is "other" has no known
    bounds.
    """
    found: dict[PointKey, Gross] = {}
    lively = any(seen.moments.rows > 1 and not moments.still(seen.moments) for seen in points.values())
    for site in sites:
        pre, post = points.get((site.layer, "pre")), points.get((site.layer, "post"))
        if pre is None or post is None or min(pre.moments.rows, post.moments.rows) < max(minimum_rows, 2):
            continue  # rows with a NaN are not counted: that is for the guard to say
        low, high = extremes(post.histogram)
        if site.variant != "other" and low < _FLOOR:
            found[site.layer, "post"] = "impossible"
        elif max(-low, high) < _CLOSED:
            found[site.layer, "post"] = "dead"
        elif lively and moments.still(pre.moments):
            found[site.layer, "pre"] = "dead"
    return found


def the_same(fault: Gross, calm: Histogram) -> bool:
    """Return whether calm values show a fault as well: a layer may be dead for good, and quantised values may overshoot."""
    low, high = extremes(calm)
    if fault == "impossible":
        return low < _FLOOR
    return calm.cells.size < 2 or max(-low, high) < _CLOSED


def extremes(histogram: Histogram) -> tuple[float, float]:
    """Return the smallest and the largest finite value counted, each cell by its edge nearer to zero; zeros where there is none."""
    edges = lattice.lower_edges(histogram.cells[[0, -1]], histogram.bits) if histogram.cells.size else np.zeros(2)
    return float(edges[0]), float(edges[1])
