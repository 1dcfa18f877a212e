"""whylogs: a profile of the baseline's sample and one of each window, compared by its drift score for numbers; p < .05 is its "drift".

Profiles hold KLL sketches; the score is a Kolmogorov-Smirnov test on a hundred of their quantiles. Here it is the largest -log10 p
of the columns.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import whylogs
from _speak import Baseline, Scores, each_window, pooled, serve
from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores


def profile(window: np.ndarray) -> object:
    """Return the profile of a window, a column for each series."""
    return whylogs.log(pd.DataFrame({f"series {place}": values for place, values in enumerate(pooled(window))})).view()


def fit(baseline: Baseline) -> Scores:
    """Return scores of one stream."""
    known = profile(baseline.sample)

    def see(window: np.ndarray) -> float:
        found = calculate_drift_scores(target_view=profile(window), reference_view=known, with_thresholds=True)
        return max(-math.log10(max(float(column["pvalue"]), 1e-300)) for column in found.values())

    return each_window(see)


if __name__ == "__main__":
    serve(fit, -math.log10(0.05))
