"""How much a series of calm values tells: means by the hour, independent looks, the spread, its tail, and what points lend each other."""

from __future__ import annotations

import warnings
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
# Robust standard deviations from the median beyond which a value counts no further: one incident must not pass for the spread.
_WILD = 5.0
# Stretches that a series is cut into, and how many of them may be incidents: those count no more than the next worst.
_STRETCHES = 16
_INCIDENTS = 2
# Independent looks that a stretch needs for that: with fewer, its worst is ordinary.
_LOOKS_A_STRETCH = 4.0
# Of a normal distribution, its standard deviation over the median distance from its median.
_NORMAL = 1.4826
# Values that a median is taken of.
_SAMPLED = 2_000

Places = npt.NDArray[np.intp]


def independent(rest: Floats, horizons: tuple[float, ...]) -> Floats:
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


def apart(horizons: tuple[int, ...], every: int) -> tuple[float, ...]:
    """Return the horizons whose averages fall from one window to the next by as much as these do over `every` windows."""
    keeps = [(1.0 - 2.0 / (horizon + 1.0)) ** every for horizon in horizons]
    return tuple((1.0 + keep) / (1.0 - keep) for keep in keeps)


def _shortest_time(horizon: float) -> float:
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
    """Return the mean of values (n, ...) in each stratum (S, ...), smoothed over neighbouring hours, and what is left of them.

    What lies far out is tamed: it counts no more for the mean, and is left no larger, than an ordinary outlier.
    """
    first = _means(values, at, strata)
    rest = _tamed_by_hour(values - first[at], at, strata)
    second = _means(rest, at, strata)
    return first + second, rest - second[at]


def tamed(values: Floats, most: float = _WILD) -> Floats:
    """Return values (n, ...) with those far from their median brought nearer, to so many robust standard deviations."""
    middle, deviation = _robust(values)
    return _clipped(values, middle, most * deviation)


def _tamed_by_hour(rest: Floats, at: Places, strata: int) -> Floats:
    """Return what is left of values (n, ...), tamed; hours in which they scatter more may have as much more."""
    middle, deviation = _robust(rest)
    if strata == 1:
        return _clipped(rest, middle, _WILD * deviation)
    by_hour = np.array([_robust(rest[at == hour])[1] if (at == hour).any() else deviation for hour in range(strata)])
    return _clipped(rest, middle, _WILD * np.fmax(by_hour, deviation)[at])


def _robust(values: Floats) -> tuple[Floats, Floats]:
    """Return the median (...) of values (n, ...) and their standard deviation by the median distance from it."""
    sample = values[:: max(1, len(values) // _SAMPLED)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a key without any value has no median
        middle = np.nanmedian(sample, axis=0)
        return middle, _NORMAL * np.nanmedian(np.abs(sample - middle), axis=0)


def _clipped(values: Floats, middle: Floats, reach: Floats) -> Floats:
    nearer: Floats = np.where(reach > 0, np.clip(values, middle - reach, middle + reach), values)
    return nearer


def _means(values: Floats, at: Places, strata: int) -> Floats:
    counts, sums = _by_hour(values, at, strata)
    everywhere = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1.0)
    return np.where(counts > 0, sums / np.maximum(counts, 1e-9), everywhere)


class Spread(NamedTuple):
    """How calm values scatter."""

    deviation: Floats
    """(S, ..., K, H) standard deviation in each stratum."""
    looks: Floats
    """(H,) independent looks behind it."""
    freedom: Floats
    """(..., K, H) degrees of freedom of the tail."""


def upper_spread(rest: Floats, horizons: tuple[float, ...], at: Places, strata: int) -> Spread:
    """Return how values (n, K, H) scatter above zero: scores are skewed, and alarms come from above."""
    return _spread(np.where(rest > 0, np.sqrt(2.0) * rest, 0.0 * rest), rest, horizons, at, strata, 2.0)


def spread(rest: Floats, horizons: tuple[float, ...], at: Places, strata: int) -> Spread:
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


def _spread(values: Floats, series: Floats, horizons: tuple[float, ...], at: Places, strata: int, times: float) -> Spread:
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
    mean, even, fourths = (
        np.where(few < _STRETCHES * _LOOKS_A_STRETCH, _mean(part, 1, 0), _mean(part, _STRETCHES, _INCIDENTS))
        for part in (squares / uneven[at], squares / restless[at], np.square(squares / restless[at]))
    )
    kurtosis = fourths / np.maximum(np.square(even), _TINY) / times
    excess = np.maximum(kurtosis - 3.0 - np.sqrt(48.0 / few), 0.0)
    alive = mean[:, 0] > _TINY  # what never moved at the shortest horizon has no ratio to it
    borrowed = _borrowed(mean[alive], few - 1.0, (series / np.sqrt(uneven[at]))[:, :, 0])
    freedom = 1.0 / (1.0 / (few - 1.0 + borrowed) + excess / (4.0 * excess + 6.0))
    usual = mean[:, :1] * (mean[alive] / mean[alive, :1]).mean(axis=0) if alive.any() else mean
    mean = ((few - 1.0) * mean + borrowed * usual) / (few - 1.0 + borrowed)
    deviation = np.sqrt(mean * restless / np.maximum(1.0 - 1.0 / few, 0.5))
    return Spread(np.maximum(deviation, LEAST_SPREAD), looks, freedom)


def _mean(values: Floats, stretches: int, incidents: int) -> Floats:
    """Return the mean (...) of values (n, ...), those of the worst stretches of successive ones brought down to the next worst.

    What comes again and again belongs to the traffic; what came in one stretch only was an incident, and is no measure of calm.
    """
    parts = [part for part in np.array_split(values, stretches) if len(part)]
    counts = np.array([(~np.isnan(part)).sum(axis=0) for part in parts], np.float64)
    means = np.array([np.nan_to_num(part).sum(axis=0) for part in parts]) / np.maximum(counts, 1.0)
    if len(parts) > incidents:
        means = np.minimum(means, np.sort(means, axis=0)[-1 - incidents])
    mean: Floats = (counts * means).sum(axis=0) / np.maximum(counts.sum(axis=0), 1.0)
    return mean


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
