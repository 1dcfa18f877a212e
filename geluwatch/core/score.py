"""The drift score: how far a window's channels are from the baseline, in units of the baseline's own noise.

A window's vector holds, for each channel, its mean and the logarithm of its standard deviation. The reference is
the mean of the baseline's vectors and their variance from window to window, which contains everything that makes
calm windows differ: sampling, batches, topics, hours. The score of a run of windows is the mean squared z of their
average vector, times their number: about 1 in calm at every horizon, while a lasting shift grows with the horizon.

Volume: noise from sampling shrinks with the rows in a window, noise of the traffic itself does not. A window with
fewer rows than the reference is therefore judged against variance scaled up by the ratio of rows (the most it can
have grown), one with more rows against the variance as it is, so that volume alone never raises a score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geluwatch.core.moments import variance
from geluwatch.records import Floats, Moments


@dataclass(frozen=True, slots=True)
class Reference:
    """Calm vectors of one (layer, point): their `mean` (2C,), `variance` (2C,), and typical `rows` a window."""

    mean: Floats
    variance: Floats
    rows: float


def vector(moments: Moments) -> Floats:
    """Return a window's vector (2C,): channel means, then log standard deviations."""
    by_channel = variance(moments)
    # A channel that never moves has no log spread; a millionth of the layer's variance stands in for zero.
    floor = 1e-6 * float(by_channel.mean()) + np.finfo(np.float64).tiny
    return np.concatenate([moments.mean, 0.5 * np.log(by_channel + floor)])


def reference(vectors: Floats, rows: Floats) -> Reference:
    """Return the reference of calm vectors (m, 2C) whose windows had `rows` (m,); m is at least 2."""
    return _reference(vectors.mean(axis=0), vectors.var(axis=0, ddof=1), float(np.median(rows)))


def _reference(mean: Floats, spread: Floats, rows: float) -> Reference:
    # A component that never varied would turn the smallest rounding difference into an alarm.
    return Reference(mean, np.maximum(spread, 1e-4 * spread.mean() + np.finfo(np.float64).tiny), rows)


def score(calm: Reference, vectors: Floats, rows: Floats) -> float:
    """Return the score of consecutive windows: `vectors` (h, 2C), newest last, with `rows` (h,) each."""
    scarcity = float(np.maximum(1.0, calm.rows / np.maximum(rows, 1.0)).mean())
    z_squared = np.square(vectors.mean(axis=0) - calm.mean) / (calm.variance * scarcity)
    return float(z_squared.mean()) * len(vectors)


def replay(vectors: Floats, rows: Floats, horizon: int, gap: int) -> Floats:
    """Return the score of every run of `horizon` windows against all others but `gap` neighbours on either side.

    Leaving the run's own block out keeps the scores those of unseen windows. Sums are updated, not taken anew, so
    the cost is linear in the number of windows.
    """
    centred = vectors - vectors.mean(axis=0)  # the variance from sums of squares needs centred values to be exact
    sums = np.concatenate([np.zeros((1, centred.shape[1])), np.cumsum(centred, axis=0)])
    squares = np.concatenate([np.zeros((1, centred.shape[1])), np.cumsum(np.square(centred), axis=0)])
    scores = []
    for start in range(len(vectors) - horizon + 1):
        low, high = max(0, start - gap), min(len(vectors), start + horizon + gap)
        left = len(vectors) - (high - low)
        if left < 2:
            continue
        mean = (sums[-1] - sums[high] + sums[low]) / left
        spread = (squares[-1] - squares[high] + squares[low] - left * np.square(mean)) / (left - 1)
        others = np.concatenate([rows[:low], rows[high:]])
        calm = _reference(mean, np.maximum(spread, 0.0), float(np.median(others)))
        run = slice(start, start + horizon)
        scores.append(score(calm, centred[run], rows[run]))
    return np.array(scores)
