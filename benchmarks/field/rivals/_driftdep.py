"""driftdep's Kolmogorov-Smirnov test for series with a memory: each layer's last half hour against its baseline.

It is made for autocorrelated numbers, so it is given each series' mean and log deviation of a window as one series in time: the
baseline's last thousand windows as the reference, the last thirty windows as what is new. p < .05 in any series by default; the score
is the largest -log10 p.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import driftdep
import numpy as np
from _speak import Baseline, Scores, layer_series

REFERENCE, RECENT = 1_000, 30


def fit_with(**settings: Any) -> Any:
    """Return a fit with settings of the test."""
    warnings.simplefilter("ignore")

    def fit(baseline: Baseline) -> Scores:
        calm = layer_series(baseline.summaries)[-REFERENCE:]

        def p_of(known: np.ndarray, recent: np.ndarray) -> float:
            return max(float(driftdep.drift_test(known, recent, statistic="ks", rng=0, **settings).pvalue), 1e-300)

        def scores(windows: np.ndarray) -> np.ndarray:
            series = np.concatenate([calm[-RECENT + 1 :], layer_series(windows)])
            found = []
            for end in range(RECENT, len(series) + 1):
                recent = series[end - RECENT : end]
                found.append(max(-math.log10(p_of(*pair)) for pair in zip(calm.T, recent.T, strict=True)))
            return np.array(found)

        return scores

    return fit
