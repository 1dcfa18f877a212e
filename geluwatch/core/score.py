"""The drift score: how far a window's channels are from the baseline, in units of the baseline's own noise.

A window's vector holds, for each channel, its mean and the logarithm of its standard deviation. The reference is
the mean of the baseline's vectors and their variance from window to window, which contains everything that makes
calm windows differ: sampling, batches, topics, hours.

Windows are averaged before they are scored, each with `2 / (horizon + 1)` of the weight and the rest for what came
before (an exponentially weighted average, Roberts 1959): noise falls with the horizon and a lasting shift stays. The
score is the typical squared z of the average, about 1 in calm at every horizon. Its noise counts the reference's own:
the mean of n windows is uncertain by one n-th of their variance, and an average of h windows by one h-th.

Typical is a power mean: of the square roots of |z|, raised again. One odd text in an otherwise calm window throws some
channels far out, and would carry a plain mean of squares over any threshold; a shift of the whole layer moves both
alike, and a few dead channels still count.

Volume: noise from sampling shrinks with the rows in a window and the requests they come from, noise of the traffic itself
does not. A window with fewer than the reference is therefore judged against variance scaled up by the ratio (the most it
can have grown), one with more rows against the variance as it is, so that volume alone never raises a score. Nor may the
bias of few rows: the log spread of a small sample falls short of the true one by about its own variance plus half the
relative variance of the mean. Averaging leaves that bias where noise shrinks, so its square joins the variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geluwatch.core.moments import variance
from geluwatch.records import Floats, Moments, Reference

# Keeps the score of a layer of zeros finite; far below the square of any float32 that matters.
_TINY = 1e-30

# What a float32 can hold.
_LARGEST = float(np.finfo(np.float32).max)

# Standard deviations beyond which a window counts no further in an average, which would else remember it for hours.
_WILD = 10.0

# The fourth power of the mean square root of a standard normal's magnitude: what calm scores before it is divided out.
_CALM = (2**0.25 * math.gamma(0.75) / math.sqrt(math.pi)) ** 4

# Smallest noise that is believed in a channel's mean, as a share of the channel's size, and in its log spread.
_RESOLUTION = 1e-3


FILLED = 0.75
"""An average is scored once it is worth this share of the windows that it is meant to hold."""


def vector(moments: Moments) -> Floats:
    """Return a window's vector (2C,): channel means, then log standard deviations."""
    by_channel = variance(moments)
    # A channel that never moves has no log spread; a thousandth of the layer's deviation stands in for zero,
    # or a millionth of its values where nothing in the layer moves.
    floor = 1e-6 * float(by_channel.mean()) + 1e-12 * float(np.square(moments.mean).mean()) + _TINY
    return np.concatenate([moments.mean, 0.5 * np.log(by_channel + floor)])


def reference(mean: Floats, spread: Floats, rows: float, windows: int, requests: float = 0.0) -> Reference:
    """Return the reference of calm windows from the mean (2C,) and the variance (2C,) of their vectors.

    Components so still that the smallest rounding difference would be an alarm get a floor. Means and log spreads have
    different units, so each half has its own: a hundredth of its typical noise, and what rounding can do.
    """
    halves = spread.reshape(2, -1)
    typical = np.array([[float(_power_mean(half))] for half in halves])
    levels, log_spreads = mean.reshape(2, -1)
    size = np.square(levels) + np.exp(np.minimum(2.0 * log_spreads, 700.0))
    rounding = np.square(_RESOLUTION) * np.stack([size, np.ones_like(levels)])
    floored = np.maximum(halves, np.maximum(1e-4 * typical, rounding) + _TINY).reshape(-1).clip(max=_LARGEST)
    return Reference(mean.clip(-_LARGEST, _LARGEST).astype(np.float32), floored.astype(np.float32), rows, windows, requests)


def pooled(calm: Reference) -> Moments:
    """Return the channel moments of all calm windows together, as far as the reference tells."""
    levels, log_spreads = np.split(calm.mean.astype(np.float64), 2)
    rows = round(calm.rows * calm.windows)
    between = calm.variance[: levels.size].astype(np.float64)
    return Moments(rows, levels, rows * (np.exp(2.0 * log_spreads) + between))


def scarcity(calm: Reference, rows: float, requests: float = 0.0) -> float:
    """Return by how much less traffic than the reference's may have raised a window's variance; 1 where there is as much.

    Rows of one request resemble each other, so whichever is scarcer counts: rows, or requests where both sides know them.
    """
    fewer = calm.requests / requests if requests and calm.requests else 1.0
    return max(1.0, calm.rows / max(rows, 1.0), fewer)


def tamed(calm: Reference, seen: Floats, scarce: float) -> Floats:
    """Return a window's vector (2C,) with what is wildly far from the reference brought nearer, where it is as bad."""
    reach = _WILD * math.sqrt(scarce) * np.sqrt(calm.variance)
    return np.clip(seen, calm.mean - reach, calm.mean + reach)


@dataclass(slots=True)
class Average:
    """The exponentially weighted average of successive windows' vectors at one horizon."""

    horizon: int
    vector: npt.NDArray[np.float32]
    """(2C,), to be divided by `weight`."""
    weight: float = 0.0
    noise: float = 0.0
    """Sum of the squared weights, each times its window's scarcity: the average's variance over one full window's."""
    squares: float = 0.0
    """Sum of the squared weights."""
    scarce: float = 0.0
    """Sum of the weights times the scarcity."""

    @classmethod
    def empty(cls, horizon: int, size: int) -> Average:
        """Return the average of no windows."""
        return cls(horizon, np.zeros(size, np.float32))

    def add(self, seen: Floats, scarce: float) -> None:
        """Take one more window, of vector (2C,)."""
        share = smoothing(self.horizon)
        self.vector *= np.float32(1.0 - share)
        self.vector += np.float32(share) * seen.astype(np.float32)
        self.weight += share * (1.0 - self.weight)
        self.noise = (1.0 - share) ** 2 * self.noise + share**2 * scarce
        self.squares = (1.0 - share) ** 2 * self.squares + share**2
        self.scarce += share * (scarce - self.scarce)

    def score(self, calm: Reference) -> float:
        """Return the score, NaN while the average holds too few windows for its horizon."""
        if not self.weight or filled(self.weight, self.squares, self.horizon) < FILLED:
            return float("nan")
        return float(score(calm, self.vector / self.weight, self.noise / self.weight**2, self.scarce / self.weight))


def smoothing(horizon: int) -> float:
    """Return the newest window's weight, which gives the average the variance of `horizon` plainly averaged windows."""
    return 2.0 / (horizon + 1.0)


def filled(weight: float, squares: float, horizon: int) -> float:
    """Return how many windows an average is worth, as a share of its horizon."""
    return weight**2 / squares / horizon


def score(calm: Reference, average: npt.NDArray[np.floating], noise: Floats | float, scarce: Floats | float) -> Floats:
    """Return the scores (...,) of averages (..., 2C).

    Args:
        calm: What they are compared with.
        average: Vectors averaged over windows.
        noise: (...,) variance of each average, over that of one window with as many rows as the reference's.
        scarce: (...,) mean scarcity of the windows averaged.
    """
    factor = np.asarray(noise) + 1.0 / calm.windows
    gap = np.square(np.subtract(average, calm.mean, dtype=np.float64))  # finite activations may be far out
    if np.max(scarce) <= 1.0:  # as a rule; then all channels share the factor
        return _power_mean(gap / calm.variance) / (factor * _CALM)
    levels, log_spreads = calm.variance.reshape(2, -1)
    short = np.asarray(scarce)[..., None] - 1.0
    allowance = np.square(short * (log_spreads + 0.5 * levels * np.exp(-2.0 * calm.mean[levels.size :])))
    factor = factor[..., None]
    means = gap[..., : levels.size] / (factor * levels)
    spreads = gap[..., levels.size :] / (factor * log_spreads + allowance)
    return _power_mean(np.concatenate([means, spreads], axis=-1)) / _CALM


def _power_mean(values: Floats) -> Floats:
    """Return the power mean of exponent 1/4 over the last axis, which neither a few wild values nor many zeros carry away."""
    mean: Floats = np.sqrt(np.sqrt(values)).mean(axis=-1, dtype=np.float64)
    return mean**4


def replay(vectors: Floats, rows: Floats, horizon: int, gap: int) -> Floats:
    """Return the score at each of successive calm windows against a reference that has seen neither it nor its neighbours.

    Left out are the windows that its average holds and `gap` more after it. Sums are updated, not taken anew, so the
    cost is linear in the number of windows.

    Args:
        vectors: (m, 2C), oldest first.
        rows: (m,)
        horizon: Windows averaged.
        gap: Windows left out on either side, at the least.

    Returns:
        (m,) scores, NaN where the average holds too few windows or the reference fewer than two.
    """
    count = len(vectors)
    middle = vectors.mean(axis=0)
    centred = vectors - middle  # the variance from sums of squares needs centred values to be exact
    sums = _running(centred)
    squares = _running(np.square(centred))
    typical = float(np.median(rows))
    averages, weights = averaged(centred, horizon)
    scarce = np.maximum(1.0, typical / np.maximum(rows, 1.0))
    noises, squared, shares = averaged_noise(scarce, horizon)
    scores = np.full(count, np.nan)
    for at in range(count):
        low, high = max(0, at - max(2 * horizon - 2, gap)), min(count, at + gap + 1)
        left = count - (high - low)
        if left < 2 or filled(weights[at], squared[at], horizon) < FILLED:
            continue
        mean = (sums[-1] - sums[high] + sums[low]) / left
        spread = (squares[-1] - squares[high] + squares[low] - left * np.square(mean)) / (left - 1)
        calm = reference(middle + mean, np.maximum(spread, 0.0), typical, left)
        scores[at] = score(calm, middle + averages[at] / weights[at], noises[at] / weights[at] ** 2, shares[at] / weights[at])
    return scores


def averaged(values: Floats, horizon: int) -> tuple[Floats, Floats]:
    """Return the weighted sums (m, ...) of successive values (m, ...) and their weights (m,): `Average`, for a whole series."""
    share = smoothing(horizon)
    sums = _recur(share * values, 1.0 - share)
    weights: Floats = 1.0 - (1.0 - share) ** np.arange(1.0, len(values) + 1.0)
    return sums, weights


def averaged_noise(scarce: Floats, horizon: int) -> tuple[Floats, Floats, Floats]:
    """Return `noise`, `squares` and `scarce` of `Average` at each of successive windows."""
    share = smoothing(horizon)
    keep = (1.0 - share) ** 2
    return _recur(share**2 * scarce, keep), _recur(share**2 * np.ones_like(scarce), keep), averaged(scarce, horizon)[0]


def _recur(values: Floats, keep: float) -> Floats:
    """Return each value plus `keep` times the result before it."""
    results = np.array(values, dtype=np.float64)
    for at in range(1, len(results)):
        results[at] += keep * results[at - 1]
    return results


def _running(values: Floats) -> Floats:
    return np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
