"""Roberts' EWMA (1959) of weight .1 on channel means; see `_charts`."""

import numpy as np
from _charts import calibrated
from _speak import serve
from scipy.signal import lfilter

WEIGHT = 0.1


def chart(numbers: np.ndarray) -> np.ndarray:
    """Return the square of the average."""
    return np.square(lfilter([WEIGHT], [1.0, WEIGHT - 1.0], numbers, axis=0))


if __name__ == "__main__":
    serve(calibrated(chart), 1.0)
