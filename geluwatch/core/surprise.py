"""How surprising a window's scores are in calm traffic: from scores to tail probabilities.

Each score is judged twice. Its *level* is its logarithm: how far the layer is from the baseline. Its *contrast* is how
much further it is than the other layers' median: traffic moves all layers together, a fault inside the model moves one.
What the layers share cancels out of the contrast, which is what makes small faults visible on unruly traffic. The *shift*
and the *scale* are taken over the root of the other layers' median score, above 1: when traffic moves everything, every
layer leans further. They are judged to either side of zero. The *largest*, as a logarithm, is taken over the same.

All five are measured on the baseline's own windows, hour by hour where the baseline is long enough: their mean and their
standard deviation, and how many independent looks those rest on (scores overlap and traffic has a memory: the number of
windows is divided by the integrated autocorrelation time). A new score then lies x standard deviations out, and the
probability of that is Student's, the prediction distribution of one more normal value from an estimated mean and
deviation; few looks give heavy tails. The surprise is its negative decimal logarithm: 3 means once in a thousand looks.

The level is what all of the traffic moves, and traffic bursts: a strange topic for some minutes, further out than anything in
a baseline of some days. So a level is taken at its word when it has lasted, and has a heavier tail until then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy import special

from geluwatch.core import contrast
from geluwatch.core.contrast import Bend, Layers, shared
from geluwatch.core.looks import apart, centre, independent, spread, tamed, upper_spread
from geluwatch.records import STATISTICS, Calm, Floats

FAMILIES = ("level", "contrast", "shift", "scale", "largest")
"""The ways in which a window is judged, in the order of the first axis of what follows."""

SIDES = np.array([1.0, 1.0, 2.0, 2.0, 1.0])[:, None, None]
"""(5, 1, 1) tails that count in each family: shifts and scales surprise from both sides, the others from above."""

LASTING = 12
"""Windows that a level must last for to be judged by what the baseline shows alone: of a minute each, less than a ticket waits."""

MOST = 300.0
"""Surprise beyond which floating point ends."""

# Below it lies only a layer that never varied, whose noise is the floor that `score` assumes.
_LEAST_SCORE = 0.05
# Windows that the mean of an hour takes: with fewer, windows would be compared with little more than themselves.
_WINDOWS_AN_HOUR = 8
# Degrees of freedom that the tail of a few windows' level has at most. With 10 a total change of domain is still told at once, and traffic
# with heavy tails gives a fifth of the false tickets that it gave (benchmarks/README.md, "Bursts").
_BURST_FREEDOM = 10.0
# Share of the tolerated shift that may fall on one layer more than on the others.
_ALONE = 0.3
_HOUR, _DAY, _WEEK = 3600.0, 24, 168


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What calm windows look like: the location and spread of each level, contrast, shift, scale and largest.

    K is the number of (layer, point) keys, H of horizons, S of strata (hours of the week, of the day, or one for all).
    """

    layers: Layers
    """Which keys belong to the same layer."""
    level: Floats
    """(S, K, H) mean logarithm of the scores."""
    level_spread: Floats
    """(S, K, H) standard deviation about it."""
    floor: Floats
    """(H,) how far below the mean calm levels come. Further down all windows are alike to the contrast: traffic that is busier
    than the baseline's is steadier, by more in one layer than in another, and that is not drift."""
    contrast: Floats
    """(S, K, H) mean contrast."""
    bend: Bend
    """How the contrast depends on the level that the other layers share."""
    contrast_spread: Floats
    """(S, K, H) standard deviation about it, where the others are as usual."""
    lean: Floats
    """(S, 2, K, H) mean shift and scale; zero where hours are not told apart, for the baseline is what they are measured from."""
    lean_spread: Floats
    """(S, 2, K, H) their standard deviations about it."""
    largest: tuple[Floats, Floats] | None
    """(S, K, H) mean logarithm of the largest and standard deviation about it; None where the baseline is from before it was measured."""
    looks: Floats
    """(F, H) independent looks behind each family."""
    freedom: Floats
    """(F, K, H) degrees of freedom of the tail."""
    burst: Floats
    """(H,) most degrees of freedom of a level that has not lasted; infinite where the average is as long as that itself."""
    windows: int
    """Windows measured, with those in between."""

    def deviations(self, scores: Floats, stratum: npt.NDArray[np.intp] | int = 0, tolerated: Floats | float = 0.0) -> Floats:
        """Return how many standard deviations a window lies from calm: shifts and scales either way, the others above.

        Args:
            scores: (..., 4, K, H) statistics, in the order of `records.STATISTICS`; 3 where the baseline has no more.
            stratum: (...) which of the strata each belongs to.
            tolerated: (H,) the square of the lasting shift that does not count, over an average's variance (see `tolerated`).

        Returns:
            (..., F, K, H), NaN where there is no score or nothing to contrast it with.
        """
        level_spread = self.level_spread[stratum]
        levels = (_logs(scores[..., 0, :, :]) - self.level[stratum]) / level_spread
        floored = np.maximum(levels, self.floor)
        others = shared(floored, self.layers)
        allowed = np.log1p(tolerated) / level_spread
        allowed_alone = np.log1p(_ALONE * tolerated) / level_spread
        contrasts = self.bend.straighten(floored - allowed_alone - others - self.contrast[stratum], others) / self.contrast_spread[stratum]
        leans, largest = _steadied(scores, level_spread * others)
        leans = (leans - self.lean[stratum]) / self.lean_spread[stratum]
        leans = np.copysign(np.maximum(np.abs(leans) - np.sqrt(tolerated), 0.0), leans)
        families = [(levels - allowed)[..., None, :, :], contrasts[..., None, :, :], leans]
        if self.largest is not None:
            usual, scatter = (part[stratum] for part in self.largest)
            allowed = np.log1p(np.sqrt(tolerated) * np.exp(-usual))
            families.append(((largest - usual - allowed) / scatter)[..., None, :, :])
        alone = np.sqrt(1.0 + len(self.level) / self.looks)[:, None, :]  # a stratum's mean rests on its share of the looks
        return np.concatenate(families, axis=-3) / alone

    def surprise(self, deviations: Floats, lasting: Floats) -> Floats:
        """Return the surprise (..., F, K, H) of deviations; it grows with them, to either side where both count.

        Args:
            deviations: (..., F, K, H) as `deviations` returns them.
            lasting: (..., K, H) the least level of the last `LASTING` windows, NaN where too few are known. What lasts has its own
                probability; a level of a few windows has that of a burst, which traffic has more of than a baseline can know.
        """
        sides = SIDES[: len(self.looks)]
        outward = np.where(sides > 1.0, np.abs(deviations), deviations)
        freedom = np.concatenate([np.minimum(self.freedom[:1], self.burst), self.freedom[1:]])
        found = _decades(freedom, outward, sides)
        found[..., 0, :, :] = np.fmax(found[..., 0, :, :], _decades(self.freedom[0], lasting))
        return found


def lasting(levels: Floats, every: int = 1) -> Floats:
    """Return the least (n, K, H) of each window's level and those of the windows before it, `LASTING` in all.

    It is NaN where there are fewer windows, or less than half of them have a level.

    Args:
        levels: (n, K, H) of successive windows, oldest first.
        every: Windows from one of them to the next.
    """
    count = -(-LASTING // every)
    least = np.full_like(levels, np.nan)
    if len(levels) >= count:
        seen = sliding_window_view(levels, count, axis=0)
        enough = (~np.isnan(seen)).sum(axis=-1) >= count / 2
        least[count - 1 :] = np.where(enough, np.fmin.reduce(seen, axis=-1), np.nan)
    return least


def _decades(freedom: Floats, outward: Floats, sides: Floats | float = 1.0) -> Floats:
    found: Floats = -np.log10(np.maximum(sides * special.stdtr(freedom, -outward), 10.0**-MOST))
    return found


def stratum(time: Floats | float, strata: int) -> npt.NDArray[np.intp]:
    """Return which of `strata` the moments belong to: hours of the day or the week since the epoch, or all to one."""
    return (np.floor_divide(time, _HOUR) % strata).astype(np.intp)


def tolerated(tolerance: float, horizons: tuple[int, ...], windows: int) -> Floats:
    """Return the square of the lasting shift that is to be tolerated, over the variance of an average at each horizon (H,).

    No traffic stays what it was to the last digit, and a long average would make an alarm of any difference. A shift whose
    square is `tolerance` times a window's variance has tolerance / (1 / horizon + 1 / windows) times the average's: it
    multiplies the score by as much more than 1, and moves a lean by the root of it. Contrasts are allowed less: most of what
    other traffic does, all layers do.
    """
    return tolerance / (1.0 / np.array(horizons, np.float64) + 1.0 / max(windows, 1))


def strata(ended: Floats) -> int:
    """Return how many hours windows that ended at these moments (n,) tell apart: two cycles are needed, and a few windows an hour."""
    hours = float(ended[-1] - ended[0]) / _HOUR if len(ended) else 0.0
    return next((cycle for cycle in (_WEEK, _DAY) if hours >= 2 * cycle and len(ended) >= _WINDOWS_AN_HOUR * cycle), 1)


def measure(calm: Calm, hours: int = 0) -> Yardstick:
    """Return the yardstick of calm scores.

    Args:
        calm: The scores.
        hours: Strata to tell apart; 0 to go by how long they cover.
    """
    layers = contrast.by_layer(calm.keys)
    hours = hours or strata(calm.ended)
    at = stratum(calm.ended, hours)
    horizons = apart(calm.horizons, calm.every)
    scores = calm.scores.astype(np.float64)
    level, level_rest = centre(_logs(scores[:, 0]), at, hours)
    levels = upper_spread(level_rest, horizons, at, hours)
    own = level_rest / levels.deviation[at]
    others = shared(own, layers)
    middle, rest = centre(own - others, at, hours)
    bend = contrast.fit(rest, others, independent(rest, horizons))
    contrasts = upper_spread(bend.straighten(rest, others), horizons, at, hours)
    leans, largest = _steadied(scores, levels.deviation[at] * others)
    lean, lean_rest = centre(leans, at, hours) if hours > 1 else (np.zeros((1, *leans.shape[1:])), tamed(leans))
    shifts, scales = (spread(lean_rest[:, which], horizons, at, hours) for which in range(2))
    families, furthest = [levels, contrasts, shifts, scales], None
    if scores.shape[1] == len(STATISTICS):
        usual, largest_rest = centre(largest, at, hours)
        families.append(upper_spread(largest_rest, horizons, at, hours))
        furthest = usual, families[-1].deviation
    return Yardstick(
        layers,
        level,
        levels.deviation,
        np.nan_to_num(own).min(axis=0).mean(axis=0),
        middle,
        bend,
        contrasts.deviation,
        lean,
        np.stack([shifts.deviation, scales.deviation], axis=1),
        furthest,
        np.stack([family.looks for family in families]),
        np.stack([family.freedom for family in families]),
        np.where(np.array(calm.horizons) < LASTING, _BURST_FREEDOM, np.inf),
        calm.every * len(calm.ended),
    )


def _steadied(scores: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Return shift and scale (..., 2, K, H), and the logarithm of the largest (..., K, H), over how far the other layers' channels are out.

    `others` (..., K, H) is by how much the logarithm of their score lies above its calm mean, NaN where there is none.
    """
    beyond = 0.5 * np.maximum(np.nan_to_num(others), 0.0)
    leans: Floats = scores[..., 1:3, :, :] / np.exp(beyond)[..., None, :, :]
    return leans, _logs(scores[..., -1, :, :]) - beyond


def _logs(scores: Floats) -> Floats:
    return np.log(np.maximum(scores, _LEAST_SCORE))
