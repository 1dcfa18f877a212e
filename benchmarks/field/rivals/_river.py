"""river's detectors of change in a stream of numbers: one for the mean and one for the log deviation of every series.

The documentation feeds a metric, number by number, so each window gives one number to each detector, standardised by the baseline
(some defaults are in units of the values), which runs in with the baseline's last windows. After an alarm a detector starts
anew, as river's do. For a tuned limit the detector runs with ever stricter settings beside each other; a window's score is the
number of the strictest that alarms.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from _speak import Baseline, Scores, layer_series


def ladder(make: Callable[[float], Any], settings: Sequence[float], run_in: int = 1_000) -> Callable[[Baseline], Scores]:
    """Return a fit for detectors made of settings, from the mildest to the strictest; they run in once for each baseline."""
    kept: dict[int, tuple[np.ndarray, np.ndarray, Any]] = {}

    def learn(baseline: Baseline) -> tuple[np.ndarray, np.ndarray, Any]:
        calm = layer_series(baseline.summaries)
        mean, sigma = calm.mean(axis=0), calm.std(axis=0, ddof=1)
        detectors = [[make(setting) for _ in mean] for setting in settings]
        ranks(detectors, (calm[-run_in:] - mean) / sigma)
        return mean, sigma, detectors

    def fit(baseline: Baseline) -> Scores:
        if id(baseline) not in kept:
            kept[id(baseline)] = learn(baseline)
        mean, sigma, detectors = kept[id(baseline)]
        return lambda windows: ranks(copy.deepcopy(detectors), (layer_series(windows) - mean) / sigma)

    return fit


def ranks(detectors: list[list[Any]], series: np.ndarray) -> np.ndarray:
    """Return for each row of a series (n, k) the number of the strictest setting at which a column alarms; 0 for none."""
    found = np.zeros(len(series))
    for rank, row in enumerate(detectors, 1):
        for detector, values in zip(row, series.T.tolist(), strict=True):
            for at, value in enumerate(values):
                detector.update(value)
                if detector.drift_detected:
                    found[at] = rank
    return found
