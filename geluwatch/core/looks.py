"""How much a series of calm scores tells: means by the hour, independent looks, the spread above the mean and its tail."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geluwatch.records import Floats

LEAST_SPREAD = 0.02
"""Calm scores of very wide layers vary little; below this spread of their logarithm the estimate itself is doubtful."""

_TINY = 1e-30


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


def centre(values: Floats, at: npt.NDArray[np.intp], strata: int) -> tuple[Floats, Floats]:
    """Return the mean of values (n, K, H) in each stratum (S, K, H), smoothed over neighbouring hours, and what is left of them."""
    counts = np.zeros((strata, *values.shape[1:]))
    sums = np.zeros_like(counts)
    there = ~np.isnan(values)
    np.add.at(counts, at, there)
    np.add.at(sums, at, np.where(there, values, 0.0))
    if strata > 1:
        counts, sums = (0.25 * np.roll(part, 1, axis=0) + 0.5 * part + 0.25 * np.roll(part, -1, axis=0) for part in (counts, sums))
    everywhere = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1.0)
    means = np.where(counts > 0, sums / np.maximum(counts, 1e-9), everywhere)
    return means, values - means[at]


def upper_spread(rest: Floats, looks: Floats) -> tuple[Floats, Floats]:
    """Return the standard deviation (..., K, H) above zero of values (n, ..., K, H), and the degrees of freedom of the upper tail.

    Scores are skewed, and alarms come from above.
    """
    above = np.square(np.where(rest > 0, rest, 0.0))
    there = np.maximum((~np.isnan(rest)).sum(axis=0), 1)
    return _spread(2.0 * above.sum(axis=0) / there, 2.0 * np.square(above).sum(axis=0) / there, looks)


def spread(rest: Floats, looks: Floats) -> tuple[Floats, Floats]:
    """Return the standard deviation (..., K, H) about zero of values (n, ..., K, H), and the degrees of freedom of the tails."""
    squares = np.square(np.nan_to_num(rest))
    there = np.maximum((~np.isnan(rest)).sum(axis=0), 1)
    return _spread(squares.sum(axis=0) / there, np.square(squares).sum(axis=0) / there, looks)


def _spread(squares: Floats, fourths: Floats, looks: Floats) -> tuple[Floats, Floats]:
    """Return deviation and degrees of freedom from the mean squares and fourth powers.

    Student's distribution with v degrees of freedom has the kurtosis 3 + 6 / (v - 4); the few looks and a kurtosis that is
    significantly above 3 both lower v.
    """
    few = np.maximum(looks, 2.0)
    excess = np.maximum(fourths / np.maximum(np.square(squares), _TINY) - 3.0 - np.sqrt(48.0 / few), 0.0)
    freedom = 1.0 / (1.0 / (few - 1.0) + excess / (4.0 * excess + 6.0))
    return np.maximum(np.sqrt(squares / np.maximum(1.0 - 1.0 / few, 0.5)), LEAST_SPREAD), freedom
