"""The drift score, its two leans and the largest: how far a window's channels are from the baseline, and in which way.

A window's vector holds, for each channel, its mean and the logarithm of its standard deviation. The reference is
the mean of the baseline's vectors and their variance from window to window, which contains everything that makes
calm windows differ: sampling, batches, topics, hours.

Each component of a window lies z standard deviations from the reference, and these are averaged over windows
(`geluwatch.core.average`) before they are scored. An average of h windows has one h-th of a window's variance, and the
reference itself, the mean of n, is uncertain by one n-th. Of the averages four statistics are made:

*   The score is the typical squared z, about 1 in calm at every horizon. Typical is a power mean: of the square roots of
    |z|, raised again. One odd text in an otherwise calm window throws some channels far out, and would carry a plain mean
    of squares over any threshold; a shift of the whole layer moves both alike.
*   The shift is the mean z of the channels' means, the scale that of their log spreads, signed, times the root of the
    number of channels. Traffic moves channels to and fro and mostly cancels out; weights, gains and biases that changed
    move them all one way. These two are the matched filters for that (North 1943), and see what the score cannot.
*   The largest is the |z| of the channel that is furthest out. One channel of a thousand moves none of the sums over all.

Volume: noise from sampling shrinks with the rows in a window and the requests they come from, noise of the traffic itself
does not. A window with fewer than the reference is therefore judged against variance scaled up by the ratio (the most it
can have grown), one with more rows against the variance as it is, so that volume alone never raises a score. Nor may the
bias of few rows: the log spread of a small sample falls short of the true one by about its own variance plus half the
relative variance of the mean. Averaging leaves that bias where noise shrinks, so its square joins the score's variance,
and the scale counts only what goes beyond it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from geluwatch.core.moments import variance
from geluwatch.records import Floats, Moments, Reference

# Keeps the score of a layer of zeros finite; far below the square of any float32 that matters.
_TINY = 1e-30

# What a float32 can hold.
_LARGEST = float(np.finfo(np.float32).max)

WILD = 10.0
"""Deviations beyond which a channel counts no further: an average would remember it for hours."""

# The fourth power of the mean square root of a standard normal's magnitude: what calm scores before it is divided out.
_CALM = (2**0.25 * math.gamma(0.75) / math.sqrt(math.pi)) ** 4

# Share of the deviation that an allowance must reach to be worth its time.
_NEGLIGIBLE = 0.03

# Smallest noise that is believed in a channel's mean, as a share of the channel's size, and in its log spread.
_RESOLUTION = 1e-3

# Log spreads whose variance is no more than so many times the least that is believed in are those of constants.
_STILL = 1.01


def vector(moments: Moments) -> Floats:
    """Return a window's vector (2C,): channel means, then log standard deviations."""
    by_channel = variance(moments)
    # A channel that never moves has no log spread; a thousandth of the layer's deviation stands in for zero,
    # or a millionth of its values where nothing in the layer moves.
    spread, size = (float(np.add.reduce(squares)) / squares.size for squares in (by_channel, np.square(moments.mean)))
    both = np.empty(2 * by_channel.size)
    both[: by_channel.size] = moments.mean
    both[by_channel.size :] = 0.5 * np.log(by_channel + (1e-6 * spread + 1e-12 * size + _TINY))
    return both


def reference(mean: Floats, spread: Floats, rows: float, windows: int, requests: float = 0.0) -> Reference:
    """Return the reference of calm windows from the mean (2C,) and the variance (2C,) of their vectors.

    Components so still that the smallest rounding difference would be an alarm get a floor. Means and log spreads have
    different units, so each half has its own: a hundredth of its typical noise, and what rounding can do.
    """
    halves = spread.reshape(2, -1)
    least = np.array([[float(_floor(half))] for half in halves])
    levels, log_spreads = mean.reshape(2, -1)
    size = np.square(levels) + np.exp(np.minimum(2.0 * log_spreads, 700.0))
    rounding = np.square(_RESOLUTION) * np.stack([size, np.ones_like(levels)])
    floored = np.maximum(halves, np.maximum(least, rounding) + _TINY).reshape(-1).clip(max=_LARGEST)
    return Reference(mean.clip(-_LARGEST, _LARGEST).astype(np.float32), floored.astype(np.float32), rows, windows, requests)


def pooled(calm: Reference) -> Moments:
    """Return the channel moments of all calm windows together, as far as the reference tells."""
    levels, log_spreads = np.split(calm.mean.astype(np.float64), 2)
    rows = round(calm.rows * calm.windows)
    between = calm.variance[: levels.size].astype(np.float64)
    return Moments(rows, levels, rows * (np.exp(2.0 * log_spreads) + between))


def thinness(rows: float, requests: float, typical_rows: float, typical_requests: float) -> float:
    """Return how many times less traffic than usual a window holds; 1 where as much, below 1 where more.

    Rows of one request resemble each other, so whichever is scarcer counts: rows, or requests where both sides know them (else 0).
    """
    return max(typical_rows / max(rows, 1.0), typical_requests / requests if requests else 0.0)


def standardised(calm: Reference, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return how many standard deviations (..., 2C) of one window vectors (..., 2C) lie from the reference."""
    with np.errstate(over="ignore"):  # what overflows is beyond any limit, and tamed
        z: npt.NDArray[np.floating] = np.subtract(vectors, calm.mean)
        z /= np.sqrt(calm.variance)
    return z


def tamed(z: npt.NDArray[np.floating], thin: float) -> npt.NDArray[np.floating]:
    """Return a window's deviations (2C,) with the wild ones brought nearer; a thin window may deviate further."""
    reach = WILD * math.sqrt(max(thin, 1.0))
    return z.clip(-reach, reach)


def nearer(calm: Reference, vector: Floats) -> Floats:
    """Return a vector (2C,) with what is far from the reference brought nearer: so that one window does not become the reference."""
    reach = WILD * np.sqrt(calm.variance)
    found: Floats = np.clip(vector, calm.mean - reach, calm.mean + reach)
    return found


def bias(calm: Reference) -> npt.NDArray[np.float32]:
    """Return by how many deviations (C,) the log spreads of a window without rows to speak of fall short; 0 of one that never moves."""
    levels, log_spreads = calm.variance.reshape(2, -1)
    relative = levels * np.exp(-2.0 * calm.mean[levels.size :])
    short: npt.NDArray[np.float32] = (log_spreads + np.float32(0.5) * relative) / np.sqrt(log_spreads)
    still = log_spreads <= np.float32(_STILL) * max(float(_floor(log_spreads)), _RESOLUTION**2)
    return np.where(still, np.float32(0.0), short)


def statistics(z: npt.NDArray[np.floating], noise: Floats, uneven: Floats, short: npt.NDArray[np.float32]) -> Floats:
    """Return the score, the shift, the scale and the largest (4, ...) of weighted sums over windows.

    Args:
        z: (..., 2C) sums of deviations.
        noise: (...,) variance of each sum less the reference's, over that of one window with as many rows as usual.
        uneven: (...,) sum of by how much the windows' thinness differs from 1, with the same weights.
        short: (C,) the reference's `bias`.
    """
    width = short.size
    leans = np.add.reduce(z.reshape(*z.shape[:-1], 2, width), axis=-1) / np.sqrt(width * noise)[..., None]
    roots = np.abs(z)
    np.sqrt(roots, out=roots)
    lacking = uneven / np.sqrt(noise)
    if lacking.max() * short.max() > _NEGLIGIBLE:  # seldom, and as costly as all the rest
        allowed = (1.0 + np.square(np.multiply.outer(lacking, short))).astype(z.dtype)
        roots[..., width:] /= np.sqrt(np.sqrt(allowed, out=allowed), out=allowed)
    typical = np.add.reduce(roots, axis=-1) / (2 * width)
    beyond = np.abs(leans[..., 1]) - lacking * (np.add.reduce(short) / math.sqrt(width))
    scale = np.copysign(np.maximum(beyond, 0.0), leans[..., 1])
    return np.array([typical**4 / (noise * _CALM), leans[..., 0], scale, np.square(np.maximum.reduce(roots, axis=-1)) / np.sqrt(noise)])


def _floor(variances: npt.NDArray[np.floating]) -> Floats:
    """Return the least variance that is believed in beside those of the same kind: of a hundredth of their typical noise."""
    return 1e-4 * _power_mean(variances)


def _power_mean(values: npt.NDArray[np.floating]) -> Floats:
    """Return the power mean of exponent 1/4 over the last axis, which neither a few wild values nor many zeros carry away."""
    mean: Floats = np.sqrt(np.sqrt(values)).mean(axis=-1, dtype=np.float64)
    return mean**4
