"""How much a series of calm values tells: means by the hour, independent looks, the spread, its tail, and what points lend each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from geluwatch.records import Floats

LEAST_SPREAD = 0.02
"""Calm scores of very wide layers vary little; below this spread of their logarithm the estimate itself is doubtful."""

_TINY = 1e-30
# Independent looks that an hour needs before its own spread counts as much as that of all.
_PRIOR_LOOKS = 20.0

Places = npt.NDArray[np.intp]


def independent(rest: Floats, horizons: tuple[int, ...]) -> Floats:
    """Return how many independent looks (H,) a series of deviations (n, K, H) is worth at each horizon.

    The number of windows is divided by the integrated autocorrelation time, measured over all keys together up to the
    first lag that is not significant, but by no less than what the averaging alone makes it.
    """
    found = []
    for place, horizon in enumerate(horizons):
        series = rest[:, :, place]
        series = series[:, ~np.isnan(series).all(axis=0)]
        kept = series[~np.isnan(series).any(axis=1)]
        time = max(_correlation_time(kept), _correlation_time(np.square(kept)), _shortest_time(horizon))
        found.append(len(kept) / time)
    return np.array(found)


def _shortest_time(horizon: int) -> float:
    """Return the correlation time of squares of averages, which falls by the square of (1 - smoothing) from look to look."""
    fall = (1.0 - 2.0 / (horizon + 1.0)) ** 2
    return (1.0 + fall) / (1.0 - fall)


def _correlation_time(series: Floats) -> float:
    """Return the integrated autocorrelation time of the columns of (n, k), in steps; 1 where they are white."""
    count = len(series)
    if count < 4 or not series.size:
        return 1.0
    centred = series - series.mean(axis=0)
    spectrum = np.fft.rfft(centred, 2 * count, axis=0)
    power = np.fft.irfft(np.square(np.abs(spectrum)), axis=0)[:count]
    scale = power[0] > 0
    if not scale.any():
        return 1.0
    correlation = (power[:, scale] / power[0, scale]).mean(axis=1)
    quiet = np.flatnonzero(correlation < 2.0 / np.sqrt(count))
    end = int(quiet[0]) if quiet.size else count
    return float(1.0 + 2.0 * correlation[1:end].sum())


def centre(values: Floats, at: Places, strata: int) -> tuple[Floats, Floats]:
    """Return the mean of values (n, ...) in each stratum (S, ...), smoothed over neighbouring hours, and what is left of them."""
    counts, sums = _by_hour(values, at, strata)
    everywhere = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1.0)
    means = np.where(counts > 0, sums / np.maximum(counts, 1e-9), everywhere)
    return means, values - means[at]


class Spread(NamedTuple):
    """How calm values scatter."""

    deviation: Floats
    """(S, ..., K, H) standard deviation in each stratum."""
    looks: Floats
    """(H,) independent looks behind it."""
    freedom: Floats
    """(..., K, H) degrees of freedom of the tail."""


def upper_spread(rest: Floats, horizons: tuple[int, ...], at: Places, strata: int) -> Spread:
    """Return how values (n, K, H) scatter above zero: scores are skewed, and alarms come from above."""
    return _spread(np.where(rest > 0, np.sqrt(2.0) * rest, 0.0 * rest), rest, horizons, at, strata, 2.0)


def spread(rest: Floats, horizons: tuple[int, ...], at: Places, strata: int) -> Spread:
    """Return how values (n, K, H) scatter about zero."""
    return _spread(rest, np.abs(rest), horizons, at, strata, 1.0)


def _by_hour(values: Floats, at: Places, strata: int) -> tuple[Floats, Floats]:
    """Return how many values (n, ...) there are in each stratum (S, ...), and their sums; neighbouring hours count half."""
    counts = np.zeros((strata, *values.shape[1:]))
    sums = np.zeros_like(counts)
    np.add.at(counts, at, ~np.isnan(values))
    np.add.at(sums, at, np.nan_to_num(values))
    if strata > 1:
        counts, sums = (0.25 * np.roll(part, 1, axis=0) + 0.5 * part + 0.25 * np.roll(part, -1, axis=0) for part in (counts, sums))
    return counts, sums


def _spread(values: Floats, series: Floats, horizons: tuple[int, ...], at: Places, strata: int, times: float) -> Spread:
    """Return how values (n, K, H), whose squares were taken `times` over, scatter about zero.

    Looks are as many as the memory of a series (n, K, H) leaves. Hours in which values scatter more get as much more; those
    in which they scatter less are not held to it. Student's distribution with v degrees of freedom has the kurtosis
    3 + 6 / (v - 4); the few looks and a kurtosis that is significantly above 3 both lower v.
    """
    squares = np.square(values)
    looks = len(series) / np.array([_shortest_time(horizon) for horizon in horizons])
    for _ in range(2):  # uneven hours would pass for a long memory
        uneven = _unevenness(squares, looks / len(series), at, strata)
        looks = independent(series / np.sqrt(uneven[at]), horizons)
    few = np.maximum(looks, 2.0)
    restless = np.maximum(uneven, 1.0)
    there = np.maximum((~np.isnan(squares)).sum(axis=0), 1)
    mean, even, fourths = (
        np.nan_to_num(part).sum(axis=0) / there for part in (squares, squares / restless[at], np.square(squares / restless[at]))
    )
    kurtosis = fourths / np.maximum(np.square(even), _TINY) / times
    excess = np.maximum(kurtosis - 3.0 - np.sqrt(48.0 / few), 0.0)
    borrowed = _borrowed(mean, few - 1.0, (series / np.sqrt(uneven[at]))[:, :, 0])
    freedom = 1.0 / (1.0 / (few - 1.0 + borrowed) + excess / (4.0 * excess + 6.0))
    usual = mean[:, :1] * (mean / np.maximum(mean[:, :1], _TINY)).mean(axis=0)
    mean = ((few - 1.0) * mean + borrowed * usual) / (few - 1.0 + borrowed)
    deviation = np.sqrt(mean * restless / np.maximum(1.0 - 1.0 / few, 0.5))
    return Spread(np.maximum(deviation, LEAST_SPREAD), looks, freedom)


def _borrowed(mean: Floats, own: Floats, series: Floats) -> Floats:
    """Return the degrees of freedom (H,) that each key may borrow from the others for its variance at the longer horizons.

    By how much averaging lowers a variance is much alike at all keys. Where the ratios (K, H) of the mean squares to those at
    the shortest horizon differ by no more than their `own` (H,) degrees of freedom make them, each may be drawn towards the
    common one (Smyth 2004), by as much as the keys that are independent of it, counted from a series (n, K), can say.
    """
    keys = len(mean)
    ratios = np.log(np.maximum(mean, _TINY) / np.maximum(mean[:, :1], _TINY))
    beyond = np.maximum(ratios.var(axis=0, ddof=1) - special.polygamma(1, own / 2.0), 1e-9) if keys > 1 else np.ones(len(own))
    prior = (1.0 + np.sqrt(1.0 + 2.0 * beyond)) / beyond  # inverts the trigamma function, to a tenth
    borrowed = np.minimum(prior, own * (_independent_keys(series) - 1.0))
    borrowed[0] = 0.0
    return borrowed


def _independent_keys(series: Floats) -> float:
    """Return how many independent columns those of (n, K) are worth, by the spread of their correlations' eigenvalues."""
    kept = series[~np.isnan(series).any(axis=1)]
    varying = kept[:, kept.std(axis=0) > 0] if len(kept) > 2 else kept[:, :0]
    count = varying.shape[1]
    return count**2 / float(np.square(np.corrcoef(varying, rowvar=False)).sum()) if count > 1 else 1.0


def _unevenness(squares: Floats, worth: Floats, at: Places, strata: int) -> Floats:
    """Return squares (n, K, H) in each stratum (S, K, H) over those of all; 1 where hours are not told apart.

    Each hour's mean is drawn towards that of all as if `_PRIOR_LOOKS` looks had shown it; `worth` (H,) are the looks a window.
    """
    counts, sums = _by_hour(squares, at, strata)
    everywhere = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1.0)
    prior = _PRIOR_LOOKS / np.maximum(worth, _TINY)
    uneven: Floats = (sums + prior * everywhere) / (counts + prior) / np.maximum(everywhere, _TINY)
    return np.where(everywhere > 0, uneven, 1.0)
