"""scipy's two-sample Kolmogorov-Smirnov test of each series' pooled values against a sample of the baseline; p < .05 anywhere.

The score is the largest -log10 p. This is what most home-made drift checks do.
"""

from __future__ import annotations

import math

import numpy as np
from _speak import Baseline, Scores, each_window, pooled, serve
from scipy import stats


def fit(baseline: Baseline) -> Scores:
    """Return scores of one stream."""
    known = pooled(baseline.sample)

    def see(window: np.ndarray) -> float:
        found = (stats.ks_2samp(now, then, method="asymp").pvalue for now, then in zip(pooled(window), known, strict=True))
        return max(-math.log10(max(p, 1e-300)) for p in found)

    return each_window(see)


if __name__ == "__main__":
    serve(fit, -math.log10(0.05))
