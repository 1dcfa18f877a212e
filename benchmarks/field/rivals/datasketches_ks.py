"""Apache DataSketches: KLL sketches of each series (k 200, the default), compared by its ks_test, which says yes or no at a level.

The levels are a ladder from .05 down; a window's score is the number of the strictest at which any series is told apart.
"""

from __future__ import annotations

import numpy as np
from _speak import Baseline, Scores, each_window, pooled, serve
from datasketches import kll_floats_sketch, ks_test

LEVELS = (0.05, 1e-2, 1e-3, 1e-4, 1e-6, 1e-9, 1e-12, 1e-16)


def sketch(values: np.ndarray) -> kll_floats_sketch:
    """Return the sketch of a series."""
    made = kll_floats_sketch()
    made.update(np.ascontiguousarray(values, np.float32))
    return made


def fit(baseline: Baseline) -> Scores:
    """Return scores of one stream."""
    known = [sketch(values) for values in pooled(baseline.sample)]

    def see(window: np.ndarray) -> float:
        now = [sketch(values) for values in pooled(window)]
        return max((rank for rank, level in enumerate(LEVELS, 1) if any(map(ks_test, now, known, [level] * len(now)))), default=0)

    return each_window(see)


if __name__ == "__main__":
    serve(fit, 1.0)
