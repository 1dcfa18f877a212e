"""Page's CUSUM (1954), to either side, with an allowance of half a deviation, on channel means; see `_charts`."""

import numpy as np
from _charts import calibrated
from _speak import serve

ALLOWANCE = 0.5


def chart(numbers: np.ndarray) -> np.ndarray:
    """Return the larger of the upward and the downward sum."""
    sides = []
    for side in (1.0, -1.0):
        walk = np.cumsum(side * numbers - ALLOWANCE, axis=0)
        sides.append(walk - np.minimum(np.minimum.accumulate(walk, axis=0), 0.0))
    return np.maximum(*sides)


if __name__ == "__main__":
    serve(calibrated(chart), 1.0)
