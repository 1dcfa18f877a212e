"""The drift score: how far a window's channels are from the baseline, in units of the baseline's own noise.

A window's vector holds, for each channel, its mean and the logarithm of its standard deviation. The reference is
the mean of the baseline's vectors and their variance from window to window, which contains everything that makes
calm windows differ: sampling, batches, topics, hours. The score of a run of windows is the typical squared z of their
average vector, times their number: about 1 in calm at every horizon, while a lasting shift grows with the horizon.

Typical is a power mean: of the square roots of |z|, raised again. One odd text in an otherwise calm window throws some
channels far out, and would carry a plain mean of squares over any threshold; a shift of the whole layer moves both
alike, and a few dead channels still count.

Volume: noise from sampling shrinks with the rows in a window, noise of the traffic itself does not. A window with
fewer rows than the reference is therefore judged against variance scaled up by the ratio of rows (the most it can
have grown), one with more rows against the variance as it is, so that volume alone never raises a score. Nor may the
bias of few rows: the log spread of a small sample falls short of the true one by about its own variance plus half the
relative variance of the mean. Averaging a run leaves that bias where noise shrinks, so its square joins the variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from geluwatch.core.moments import variance
from geluwatch.records import Floats, Moments

# Keeps the score of a layer of zeros finite; far below the square of any float32 that matters.
_TINY = 1e-60

# The fourth power of the mean square root of a standard normal's magnitude: what calm scores before it is divided out.
_CALM = (2**0.25 * math.gamma(0.75) / math.sqrt(math.pi)) ** 4

# Smallest noise that is believed in a channel's mean, as a share of the channel's size, and in its log spread.
_RESOLUTION = 1e-3


@dataclass(frozen=True, slots=True)
class Reference:
    """Calm vectors of one (layer, point): their `mean` (2C,), `variance` (2C,), and typical `rows` a window."""

    mean: Floats
    variance: Floats
    rows: float


def vector(moments: Moments) -> Floats:
    """Return a window's vector (2C,): channel means, then log standard deviations."""
    by_channel = variance(moments)
    # A channel that never moves has no log spread; a thousandth of the layer's deviation stands in for zero,
    # or a millionth of its values where nothing in the layer moves.
    floor = 1e-6 * float(by_channel.mean()) + 1e-12 * float(np.square(moments.mean).mean()) + _TINY
    return np.concatenate([moments.mean, 0.5 * np.log(by_channel + floor)])


def reference(vectors: Floats, rows: Floats) -> Reference:
    """Return the reference of calm vectors (m, 2C) whose windows had `rows` (m,); m is at least 2."""
    return _reference(vectors.mean(axis=0), vectors.var(axis=0, ddof=1), float(np.median(rows)))


def _reference(mean: Floats, spread: Floats, rows: float) -> Reference:
    """Return a reference without components so still that the smallest rounding difference would be an alarm.

    Means and log spreads have different units, so each half has its own floor: a hundredth of its typical noise, and
    what rounding can do.
    """
    halves = spread.reshape(2, -1)
    typical = np.array([[_power_mean(half)] for half in halves])
    levels, log_spreads = mean.reshape(2, -1)
    rounding = np.square(_RESOLUTION) * np.stack([np.square(levels) + np.exp(2.0 * log_spreads), np.ones_like(levels)])
    return Reference(mean, np.maximum(halves, np.maximum(1e-4 * typical, rounding) + _TINY).reshape(-1), rows)


def score(calm: Reference, vectors: Floats, rows: Floats) -> float:
    """Return the score of consecutive windows: `vectors` (h, 2C), newest last, with `rows` (h,) each."""
    scarcity = float(np.maximum(1.0, calm.rows / np.maximum(rows, 1.0)).mean())
    levels, log_spreads = calm.variance.reshape(2, -1)
    shortfall = (scarcity - 1.0) * (log_spreads + 0.5 * levels * np.exp(-2.0 * calm.mean[levels.size :]))
    noise = scarcity / len(vectors) * calm.variance
    noise[levels.size :] += np.square(shortfall)
    return _power_mean(np.square(vectors.mean(axis=0) - calm.mean) / noise) / _CALM


def _power_mean(values: Floats) -> float:
    """Return the power mean of exponent 1/4, which neither a few wild values nor many zeros carry away."""
    return float(np.sqrt(np.sqrt(values)).mean()) ** 4


def replay(vectors: Floats, rows: Floats, horizon: int, gap: int) -> Floats:
    """Return the score of every run of `horizon` windows against all others but `gap` neighbours on either side.

    Leaving the run's own block out keeps the scores those of unseen windows. Sums are updated, not taken anew, so
    the cost is linear in the number of windows.
    """
    middle = vectors.mean(axis=0)
    centred = vectors - middle  # the variance from sums of squares needs centred values to be exact
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
        calm = _reference(middle + mean, np.maximum(spread, 0.0), float(np.median(others)))
        run = slice(start, start + horizon)
        scores.append(score(calm, vectors[run], rows[run]))
    return np.array(scores)
