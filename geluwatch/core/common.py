"""What all layers do alike: a lean so small that no layer shows it for certain, but most show it a little.

A gain before the first layer, a dropout left on or a coarser format move every layer one way. The median over the layers of their
own leans has less noise than any of them, and one layer that leans by itself does not carry it.
"""

from __future__ import annotations

import numpy as np

from geluwatch.records import Floats, Ints, PointKey

LEAST_LAYERS = 3
"""Layers below which one of them would carry the median."""


def by_point(keys: tuple[PointKey, ...]) -> tuple[Ints, ...]:
    """Return which keys are before the GELUs and which behind them, as places."""
    points = [point for _, point in keys]
    return tuple(np.array([place for place, each in enumerate(points) if each == point]) for point in dict.fromkeys(points))


def common(leans: Floats, points: tuple[Ints, ...]) -> Floats:
    """Return for each key the median of the leans (..., K, H) of all layers at its point; NaN where there are few, or one has none."""
    found = np.full(leans.shape, np.nan)
    for places in points:
        if len(places) >= LEAST_LAYERS:
            found[..., places, :] = np.median(leans[..., places, :], axis=-2, keepdims=True)
    return found
