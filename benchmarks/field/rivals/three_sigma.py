"""The rule of the mean and three standard deviations, on each series' mean and log deviation of a window.

Sigma is the deviation of the baseline's own windows (NannyML sets its limits so, on chunks). The score is the square of the largest
distance in sigmas.
"""

from __future__ import annotations

import numpy as np
from _speak import Baseline, Scores, layer_series, serve


def fit(baseline: Baseline) -> Scores:
    """Return scores of one stream."""
    calm = layer_series(baseline.summaries)
    mean, sigma = calm.mean(axis=0), calm.std(axis=0, ddof=1)
    return lambda windows: np.square((layer_series(windows) - mean) / sigma).max(axis=1)


if __name__ == "__main__":
    serve(fit, 9.0)
