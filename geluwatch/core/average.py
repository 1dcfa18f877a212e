"""Exponentially weighted averages of successive windows, one by one or over a whole series, and their statistics.

Each window takes `2 / (horizon + 1)` of the weight and leaves the rest to what came before (Roberts 1959): noise falls
with the horizon, and a lasting shift stays.
"""

from __future__ import annotations

import math

import numpy as np

from geluwatch.core import score
from geluwatch.records import STATISTICS, Floats, Reference

FILLED = 0.75
"""An average is scored once it is worth this share of the windows that it is meant to hold."""


class Averages:
    """The averages of the last windows' deviations from a reference, one at each of H horizons."""

    def __init__(self, calm: Reference, horizons: tuple[int, ...]) -> None:
        share = smoothing(horizons)
        keep = 1.0 - share
        self._share, self._keep = (part.astype(np.float32)[:, None] for part in (share, keep))
        self._sums = np.zeros((len(horizons), calm.mean.size), np.float32)
        self._decay, self._gain = np.array([keep, keep**2, keep]), np.array([share, share**2, share])
        self._state = np.zeros_like(self._decay)
        """(3, H): sums of the weights; of their squares, each times what thinness adds to its window's variance; of the weights,
        each times by how much its window's thinness differs from 1."""
        self._needed = np.array([needed(horizon) for horizon in horizons])
        self._windows = 0
        self._compare(calm)

    def _compare(self, calm: Reference) -> None:
        self.calm, self._short = calm, score.bias(calm)

    def rebase(self, calm: Reference) -> None:
        """Go on with another reference of the same width."""
        before = self.calm
        moved = np.multiply.outer(self._state[0], np.subtract(before.mean, calm.mean, dtype=np.float64))
        self._sums = ((self._sums * np.sqrt(before.variance) + moved) / np.sqrt(calm.variance)).astype(np.float32)
        self._compare(calm)

    def add(self, vector: Floats, rows: float, requests: float) -> None:
        """Take one more window: its vector (2C,), and the rows and requests behind it."""
        calm = self.calm
        thin = score.thinness(rows, requests, calm.rows, calm.requests)
        z = score.tamed(score.standardised(calm, vector.astype(np.float32)), thin)
        self._sums *= self._keep
        self._sums += self._share * z
        self._state *= self._decay
        self._state += self._gain * np.array([[1.0], [max(thin, 1.0)], [abs(thin - 1.0)]])
        self._windows += 1

    def taken_with(self, vector: Floats, rows: float, requests: float) -> Floats:
        """Return the statistics with one more window, and leave that window out again."""
        kept = self._sums.copy(), self._state.copy(), self._windows
        self.add(vector, rows, requests)
        found = self.statistics()
        self._sums, self._state, self._windows = kept
        return found

    def statistics(self) -> Floats:
        """Return score, shift, scale and largest (4, H), NaN where an average holds too few windows for its horizon."""
        if not self._windows:
            return np.full((len(STATISTICS), self._needed.size), np.nan)
        weight, noise, uneven = self._state
        found = score.statistics(self._sums, noise + weight**2 / self.calm.windows, uneven, self._short)
        found[:, self._windows < self._needed] = np.nan
        return found

    def furthest(self, horizon: int) -> tuple[int, float]:
        """Return which component (of 2C) is furthest out on average over one of the horizons, by its place, and by how many deviations."""
        sums = self._sums[horizon]
        component = int(np.abs(sums).argmax())
        return component, float(sums[component] / self._state[0, horizon])


def smoothing(horizons: tuple[int, ...]) -> Floats:
    """Return the newest window's weight at each horizon, which gives the average the variance of as many plainly averaged windows."""
    return 2.0 / (np.array(horizons) + 1.0)


def needed(horizon: int) -> int:
    """Return after how many windows an average is worth `FILLED` of its horizon.

    After n windows, k being the weight left to what came before, it is worth (1 - k^n) / (1 + k^n) of it.
    """
    keep = 1.0 - float(smoothing((horizon,))[0])
    return math.ceil(math.log((1.0 - FILLED) / (1.0 + FILLED)) / math.log(keep)) if keep else 1


def replay(vectors: Floats, rows: Floats, requests: Floats, horizon: int, gap: int) -> Floats:
    """Return the statistics of each of successive calm windows against a reference that has seen neither it nor its neighbours.

    Left out are the windows that its average holds and `gap` more after it. Sums are updated, not taken anew, so the
    cost is linear in the number of windows.

    Args:
        vectors: (m, 2C), oldest first.
        rows: (m,)
        requests: (m,) batch entries they come from; 0 where unknown.
        horizon: Windows averaged.
        gap: Windows left out on either side, at the least.

    Returns:
        (4, m), NaN where the average holds too few windows or the reference fewer than two.
    """
    count = len(vectors)
    middle = vectors.mean(axis=0)
    centred = vectors - middle  # the variance from sums of squares needs centred values to be exact
    running = _running(centred)
    squares = _running(np.square(centred))
    typical = float(np.median(rows)), float(np.median(requests))
    thin = np.array([score.thinness(*held, *typical) for held in zip(rows.tolist(), requests.tolist(), strict=True)])
    sums = averaged(centred, horizon)
    weights, noises, uneven = weighed(thin, horizon)
    found = np.full((len(STATISTICS), count), np.nan)
    for at in range(needed(horizon) - 1, count):
        low, high = max(0, at - max(2 * horizon - 2, gap)), min(count, at + gap + 1)
        left = count - (high - low)
        if left < 2:
            continue
        mean = (running[-1] - running[high] + running[low]) / left
        spread = (squares[-1] - squares[high] + squares[low] - left * np.square(mean)) / (left - 1)
        calm = score.reference(middle + mean, np.maximum(spread, 0.0), typical[0], left, typical[1])
        z = weights[at] * score.standardised(calm, middle + sums[at] / weights[at])
        found[:, at] = score.statistics(z, noises[at] + weights[at] ** 2 / left, uneven[at], score.bias(calm))
    return found


def averaged(values: Floats, horizon: int) -> Floats:
    """Return the weighted sums (m, ...) of successive values (m, ...): what `Averages` adds up, for a whole series."""
    share = float(smoothing((horizon,))[0])
    return _recur(share * values, 1.0 - share)


def weighed(thin: Floats, horizon: int) -> tuple[Floats, Floats, Floats]:
    """Return the three sums (m,) that `Averages` keeps beside, at each of successive windows of thinness (m,)."""
    share = float(smoothing((horizon,))[0])
    noise = _recur(share**2 * np.maximum(thin, 1.0), (1.0 - share) ** 2)
    return averaged(np.ones_like(thin), horizon), noise, averaged(np.abs(thin - 1.0), horizon)


def _recur(values: Floats, keep: float) -> Floats:
    """Return each value plus `keep` times the result before it."""
    results = np.array(values, dtype=np.float64)
    for at in range(1, len(results)):
        results[at] += keep * results[at - 1]
    return results


def _running(values: Floats) -> Floats:
    return np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
