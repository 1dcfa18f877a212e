"""alibi-detect's KSDrift over all series as features, with Bonferroni's correction; p < .05 by default.

A window's rows are pooled, so an instance is one value of every series. The score is -log10 of the smallest p times the number
of features, which is what Bonferroni's rule compares with the level.
"""

from __future__ import annotations

import math

import numpy as np
from _speak import Baseline, Scores, each_window, pooled, serve
from alibi_detect.cd import KSDrift


def fit(baseline: Baseline) -> Scores:
    """Return scores of one stream."""
    detector = KSDrift(pooled(baseline.sample).T, p_val=0.05)

    def see(window: np.ndarray) -> float:
        found = detector.predict(pooled(window).T, return_p_val=True)["data"]["p_val"]
        return -math.log10(max(float(found.min()), 1e-300) * len(found))

    return each_window(see)


if __name__ == "__main__":
    serve(fit, -math.log10(0.05))
