"""How often calm windows surprise, and by how much: what limits are set from.

A limit stands where calm traffic comes once in tens of thousands of windows, further out than any baseline has seen. So each
quarter of the baseline is judged by what the other three say, as traffic to come will be, and the surprises that this gives
are counted where they are rare but seen. Beyond that they are taken to thin out evenly: were they exact probabilities, each
power of ten of them would be one more of surprise; where layers wander on their own they thin out more slowly, and by how
much is measured (peaks over a threshold, Pickands 1975, with an exponential tail).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from geluwatch.core import surprise
from geluwatch.core.surprise import Yardstick
from geluwatch.records import Calm, Floats

CLEARED = 0.5
"""Share of the ticket's limit that the surprise must fall below before an alarm ends."""

_PARTS = 4
# Where surprises are counted: rare enough to be a tail, common enough to be seen. Wide models surprise more in every window.
_COUNTED_AT = 2.5
_COUNTED_SHARE = 0.03
# Peaks say how the tail thins out; until there are many, what simulated traffic mostly takes weighs as much as so many peaks.
_PRIOR_PEAKS = 50.0
_PRIOR_DECADES = 1.05
# A peak counts no higher above the threshold: one incident in a baseline must not blind whoever arms it.
_HIGHEST = 4.0
# False alarms that the replay asks for, so that there is something to count.
_REPLAYED_ALARMS = 10.0


def most_surprising(yardstick: Yardstick, calm: Calm, tolerance: float) -> Floats:
    """Return the largest surprise (n, K) of each window at each key, over horizons and all ways of judging; 0 where there is none.

    Args:
        yardstick: By which they are judged.
        calm: The windows' scores.
        tolerance: As for `surprise.tolerated`.
    """
    at = surprise.stratum(calm.ended, len(yardstick.level))
    allowed = surprise.tolerated(tolerance, calm.horizons, yardstick.windows)
    deviations = yardstick.deviations(calm.scores.astype(np.float64), at, allowed)
    surprises = yardstick.surprise(deviations, surprise.lasting(deviations[:, 0], calm.every))
    largest: Floats = np.nan_to_num(surprises, nan=0.0).max(axis=(-3, -1), initial=0.0)
    return largest


def unseen(calm: Calm, hours: int, tolerance: float) -> list[Floats]:
    """Return the largest surprise (m, K) of each window, quarter by quarter, judged as the other three quarters would.

    Args:
        calm: The windows' scores.
        hours: Strata told apart, as in the yardstick of all windows.
        tolerance: As for `surprise.tolerated`.
    """
    found = []
    for part in np.array_split(np.arange(len(calm.ended)), _PARTS):
        others = np.setdiff1d(np.arange(len(calm.ended)), part)
        found.append(most_surprising(surprise.measure(_of(calm, others), hours), _of(calm, part), tolerance))
    return found


def _of(calm: Calm, which: npt.NDArray[np.intp]) -> Calm:
    return replace(calm, ended=calm.ended[which], scores=calm.scores[which])


class Tail(NamedTuple):
    """How calm windows' largest surprises are spread beyond a threshold."""

    threshold: float
    rate: float
    """Excesses of the threshold a window, rather too many than too few."""
    decades: float
    """Surprise that it takes to meet with a tenth as many; 1 were surprises exact probabilities."""
    doubt: float
    """Relative standard error of that."""

    def limit(self, rate: float, certainty: float = 1.0) -> float:
        """Return the surprise that calm windows exceed so many times a window; `certainty` is how many standard errors are allowed for."""
        return self.threshold + self.decades * (1.0 + certainty * self.doubt) * math.log10(self.rate / rate)


def measure(parts: Sequence[Floats]) -> Tail:
    """Return the tail of the largest surprises of calm windows that a yardstick has not seen.

    Where surprises are counted, half of the parts agree upon: an incident in one or two of them does not move the threshold. An
    excess lasts until the surprise is back at its median: averages remember one for as long as they reach.

    Args:
        parts: (m, K) of each part of the traffic, as `unseen` returns them.
    """
    by_part = [part.max(axis=1) for part in parts if len(part)]
    threshold = max(_COUNTED_AT, statistics.median_low([float(np.quantile(part, 1.0 - _COUNTED_SHARE)) for part in by_part]))
    worst = np.concatenate(by_part)
    excesses = np.minimum(peaks(worst, threshold, float(np.median(worst))) - threshold, _HIGHEST)
    count = len(excesses)
    decades = (_PRIOR_DECADES * _PRIOR_PEAKS + math.log(10.0) * float(excesses.sum())) / (_PRIOR_PEAKS + count)
    doubt = 1.0 / math.sqrt(_PRIOR_PEAKS + count)
    return Tail(threshold, (count + math.sqrt(count) + 1.0) / len(worst), decades, doubt)


def peaks(worst: Floats, limit: float, until: float) -> Floats:
    """Return the largest surprise of each stretch of windows (n,) that begins at a limit and ends when they fall below another."""
    found: list[float] = []
    raised = False
    for value in worst.tolist():
        if raised and value < until:
            raised = False
        elif raised:
            found[-1] = max(found[-1], value)
        elif value >= limit:
            raised = True
            found.append(value)
    return np.array(found)


def in_alarm(surprises: Floats, limit: float, before: npt.NDArray[np.bool_] | bool = False) -> npt.NDArray[np.bool_]:
    """Return which keys are in alarm in each window (n, K), by their surprises (n, K): from the limit on, until below half of it.

    Args:
        surprises: Of successive windows.
        limit: Surprise from which on there is an alarm.
        before: (K,) which were in alarm in the window before.
    """
    at = np.arange(1, len(surprises) + 1)[:, None]
    raised, ended = (np.maximum.accumulate(np.where(when, at, 0)) for when in (surprises >= limit, surprises < CLEARED * limit))
    held: npt.NDArray[np.bool_] = (raised > ended) | (before & (ended == 0))
    return held


def alarms(surprises: Floats, limit: float) -> int:
    """Return how often a model goes into alarm over windows' surprises (n, K); it is in alarm while any of its keys is."""
    held = in_alarm(surprises, limit).any(axis=1)
    return int(np.sum(np.diff(held.astype(int), prepend=0) > 0))


def replay(parts: list[Floats]) -> tuple[float, int, tuple[float, float]]:
    """Return the false alarms asked for over all windows, those that each quarter gave by the others' limits, and their 95 % interval.

    The interval is exact for a Poisson count (Garwood 1936).

    Args:
        parts: Largest surprises (m, K) of each quarter's windows, as `unseen` returns them.
    """
    count = sum(map(len, parts))
    asked = min(_REPLAYED_ALARMS, count / 10.0)
    observed = 0
    for place, part in enumerate(parts):
        others = [other for at, other in enumerate(parts) if at != place]
        observed += alarms(part, measure(others).limit(asked / count))
    low = float(special.gammaincinv(observed, 0.025)) if observed else 0.0
    return asked, observed, (low, float(special.gammaincinv(observed + 1, 0.975)))
