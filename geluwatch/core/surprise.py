"""How surprising a window's scores are in calm traffic: from scores to tail probabilities.

Each score is judged twice. Its *level* is its logarithm: how far the layer is from the baseline. Its *contrast* is how
much further it is than the other layers' median: traffic moves all layers together, a fault inside the model moves one.
What the layers share cancels out of the contrast, which is what makes small faults visible on unruly traffic.

Both are measured on the baseline's own windows, hour by hour where the baseline is long enough: their mean and their
standard deviation, and how many independent looks those rest on (scores overlap and traffic has a memory: the number of
windows is divided by the integrated autocorrelation time). A new score then lies x standard deviations out, and the
probability of that is Student's, the prediction distribution of one more normal value from an estimated mean and
deviation; few looks give heavy tails. The surprise is its negative decimal logarithm: 3 means once in a thousand looks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from geluwatch.core import contrast
from geluwatch.core.contrast import Bend, shared
from geluwatch.core.looks import centre, independent, upper_spread
from geluwatch.records import Calm, Floats, Ints

FAMILIES = ("level", "contrast")
"""The two ways in which a score is judged, in the order of the first axis of what follows."""

MOST = 300.0
"""Surprise beyond which floating point ends."""

# Below it lies only a layer that never varied, whose noise is the floor that `score` assumes.
_LEAST_SCORE = 0.05
# Windows that the mean of an hour takes: with fewer, windows would be compared with little more than themselves.
_WINDOWS_AN_HOUR = 8
_HOUR, _DAY, _WEEK = 3600.0, 24, 168


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What calm scores look like: the location and spread of each level and contrast.

    K is the number of (layer, point) keys, H of horizons, S of strata (hours of the week, of the day, or one for all).
    """

    layers: Ints
    """(K,) number of each key's layer."""
    level: Floats
    """(S, K, H) mean logarithm of the scores."""
    level_spread: Floats
    """(K, H) standard deviation about it."""
    floor: Floats
    """(H,) how far below the mean calm levels come. Further down all windows are alike to the contrast: traffic that is busier
    than the baseline's is steadier, by more in one layer than in another, and that is not drift."""
    contrast: Floats
    """(S, K, H) mean contrast."""
    bend: Bend
    """How the contrast depends on the level that the other layers share."""
    contrast_spread: Floats
    """(K, H) standard deviation about it, where the others are as usual."""
    looks: Floats
    """(2, H) independent looks behind levels and contrasts."""
    freedom: Floats
    """(2, K, H) degrees of freedom of the tail."""

    def deviations(self, scores: Floats, stratum: npt.NDArray[np.intp] | int = 0, tolerated: Floats | float = 0.0) -> Floats:
        """Return how many standard deviations levels and contrasts lie above calm.

        Args:
            scores: (..., K, H)
            stratum: (...) which of the strata each belongs to.
            tolerated: (H,) by how much a level may lie above calm before it counts (see `tolerated`).

        Returns:
            (..., 2, K, H), NaN where there is no score or nothing to contrast it with.
        """
        levels = (_logs(scores) - self.level[stratum]) / self.level_spread
        floored = np.maximum(levels, self.floor)
        others = shared(floored, self.layers)
        contrasts = self.bend.straighten(floored - others - self.contrast[stratum], others) / self.contrast_spread
        alone = np.sqrt(1.0 + len(self.level) / self.looks)[:, None, :]  # a stratum's mean rests on its share of the looks
        return np.stack([levels - tolerated / self.level_spread, contrasts], axis=-3) / alone

    def surprise(self, deviations: Floats) -> Floats:
        """Return the surprise (..., 2, K, H) of deviations; it grows with them."""
        tail = special.stdtr(self.freedom, -deviations)
        found: Floats = -np.log10(np.maximum(tail, 10.0**-MOST))
        return found


def stratum(time: Floats | float, strata: int) -> npt.NDArray[np.intp]:
    """Return which of `strata` the moments belong to: hours of the day or the week since the epoch, or all to one."""
    return (np.floor_divide(time, _HOUR) % strata).astype(np.intp)


def tolerated(tolerance: float, horizons: tuple[int, ...], windows: int) -> Floats:
    """Return by how much (H,) a level rises from a lasting shift that is to be tolerated.

    No traffic stays what it was to the last digit, and a long average would make an alarm of any difference. A shift whose
    square is `tolerance` times a window's variance multiplies the score by 1 + tolerance / (1 / horizon + 1 / windows).
    Contrasts need no allowance: what is the matter with one layer alone is the model's own doing.
    """
    return np.log1p(tolerance / (1.0 / np.array(horizons, np.float64) + 1.0 / max(windows, 1)))


def _strata(ended: Floats) -> int:
    """Return how many hours windows that ended at these moments (n,) tell apart: two cycles are needed, and a few windows an hour."""
    hours = float(ended[-1] - ended[0]) / _HOUR if len(ended) else 0.0
    return next((cycle for cycle in (_WEEK, _DAY) if hours >= 2 * cycle and len(ended) >= _WINDOWS_AN_HOUR * cycle), 1)


def measure(calm: Calm) -> Yardstick:
    """Return the yardstick of calm scores."""
    numbers = {layer: number for number, layer in enumerate(dict.fromkeys(layer for layer, _ in calm.keys))}
    layers = np.array([numbers[layer] for layer, _ in calm.keys], np.int64)
    strata = _strata(calm.ended)
    at = stratum(calm.ended, strata)
    logs = _logs(calm.scores.astype(np.float64))
    level, level_rest = centre(logs, at, strata)
    level_looks = independent(level_rest, calm.horizons)
    level_spread, level_freedom = upper_spread(level_rest, level_looks)
    levels = (logs - level[at]) / level_spread
    others = shared(levels, layers)
    middle, rest = centre(levels - others, at, strata)
    bend = contrast.fit(rest, others, independent(rest, calm.horizons))
    straight = bend.straighten(rest, others)
    looks = independent(straight, calm.horizons)
    spread, freedom = upper_spread(straight, looks)
    both = np.stack([level_looks, looks]), np.stack([level_freedom, freedom])
    floor = np.nan_to_num(np.where(np.isnan(levels), 0.0, levels).min(axis=0).mean(axis=0))
    return Yardstick(layers, level, level_spread, floor, middle, bend, spread, *both)


def _logs(scores: Floats) -> Floats:
    return np.log(np.maximum(scores, _LEAST_SCORE))
