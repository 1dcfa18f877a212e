"""frouros' KSTest of each series' pooled values; p < .05 anywhere, the level of its examples. The score is the largest -log10 p."""

from __future__ import annotations

import math

import numpy as np
from _speak import Baseline, Scores, each_window, pooled, serve
from frouros.detectors.data_drift import KSTest


def fit(baseline: Baseline) -> Scores:
    """Return scores of one stream."""
    detectors = []
    for values in pooled(baseline.sample):
        detector = KSTest()
        detector.fit(X=values)
        detectors.append(detector)

    def see(window: np.ndarray) -> float:
        found = (each.compare(X=values)[0].p_value for each, values in zip(detectors, pooled(window), strict=True))
        return max(-math.log10(max(float(p), 1e-300)) for p in found)

    return each_window(see)


if __name__ == "__main__":
    serve(fit, -math.log10(0.05))
