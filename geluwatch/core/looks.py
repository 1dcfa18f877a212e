"""How much a series of calm scores tells: means by the hour, independent looks, the spread above the mean and its tail."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
        # Deviations are squares of averages, whose correlation falls by the square of (1 - smoothing) from look to look.
        fall = (1.0 - 2.0 / (horizon + 1.0)) ** 2
        time = max(_correlation_time(kept), _correlation_time(np.square(kept)), (1.0 + fall) / (1.0 - fall))
        found.append(len(kept) / time)
    return np.array(found)


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


def upper_spread(rest: Floats, looks: Floats, at: Places, strata: int) -> tuple[Floats, Floats]:
    """Return the standard deviation (S, ..., K, H) above zero of values (n, ..., K, H), and the degrees of freedom of the upper tail.

    Scores are skewed, and alarms come from above.
    """
    return _spread(2.0 * np.square(np.where(rest > 0, rest, 0.0 * rest)), looks, at, strata, 2.0)


def spread(rest: Floats, looks: Floats, at: Places, strata: int) -> tuple[Floats, Floats]:
    """Return the standard deviation (S, ..., K, H) about zero of values (n, ..., K, H), and the degrees of freedom of the tails."""
    return _spread(np.square(rest), looks, at, strata, 1.0)


def _by_hour(values: Floats, at: Places, strata: int) -> tuple[Floats, Floats]:
    """Return how many values (n, ...) there are in each stratum (S, ...), and their sums; neighbouring hours count half."""
    counts = np.zeros((strata, *values.shape[1:]))
    sums = np.zeros_like(counts)
    np.add.at(counts, at, ~np.isnan(values))
    np.add.at(sums, at, np.nan_to_num(values))
    if strata > 1:
        counts, sums = (0.25 * np.roll(part, 1, axis=0) + 0.5 * part + 0.25 * np.roll(part, -1, axis=0) for part in (counts, sums))
    return counts, sums


def _spread(squares: Floats, looks: Floats, at: Places, strata: int, sides: float) -> tuple[Floats, Floats]:
    """Return deviation and degrees of freedom from squares (n, ..., K, H), which are `sides` times those of values.

    Hours in which values scatter more get as much more; those in which they scatter less are not held to it. Student's
    distribution with v degrees of freedom has the kurtosis 3 + 6 / (v - 4); the few looks and a kurtosis that is significantly
    above 3 both lower v.
    """
    there = np.maximum((~np.isnan(squares)).sum(axis=0), 1)
    restless = _restless(squares, looks / there, at, strata)
    even = np.nan_to_num(squares / restless[at])
    mean = even.sum(axis=0) / there
    fourths = np.square(even).sum(axis=0) / there / sides
    few = np.maximum(looks, 2.0)
    excess = np.maximum(fourths / np.maximum(np.square(mean), _TINY) - 3.0 - np.sqrt(48.0 / few), 0.0)
    freedom = 1.0 / (1.0 / (few - 1.0) + excess / (4.0 * excess + 6.0))
    deviation = np.sqrt(mean * restless / np.maximum(1.0 - 1.0 / few, 0.5))
    return np.maximum(deviation, LEAST_SPREAD), freedom


def _restless(squares: Floats, worth: Floats, at: Places, strata: int) -> Floats:
    """Return by how much more than on average squares (n, ...) are in each stratum (S, ...), at least 1.

    Each hour's mean is drawn towards that of all as if `_PRIOR_LOOKS` looks had shown it; `worth` (...) are the looks a window.
    """
    counts, sums = _by_hour(squares, at, strata)
    everywhere = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1.0)
    prior = _PRIOR_LOOKS / np.maximum(worth, _TINY)
    means = (sums + prior * everywhere) / (counts + prior)
    restless: Floats = np.maximum(means / np.maximum(everywhere, _TINY), 1.0)
    return restless
