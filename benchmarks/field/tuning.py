"""Counting alarms, and the limits at which all detectors give as many of them in calm traffic."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

MONTH = 43_200
"""Windows of a minute in thirty days."""
QUIET = 5
"""Windows without an alarm that end one."""
REPEATED = 1_440
"""Windows after which an alarm that lasts is one more: nobody may pass for calm by never ending."""
BUDGET = 2.0
"""False alarms a month that everybody is allowed."""

_PEAKS, _LEAST_EXCESSES = 0.02, 20
_LEAST_PEAKS, _MOST_PEAKS = 5, 30

Scores = npt.NDArray[np.float64]


def episodes(alarmed: npt.NDArray[np.bool_]) -> int:
    """Return how many alarms windows (n,) in alarm make."""
    at = np.flatnonzero(alarmed)
    if not at.size:
        return 0
    starts = np.flatnonzero(np.diff(at, prepend=at[0] - QUIET - 1) > QUIET)
    ends = np.append(starts[1:], at.size) - 1
    lengths = at[ends] - at[starts] + 1
    return int(np.sum((lengths - 1) // REPEATED + 1))


@dataclass(frozen=True)
class Rate:
    """False alarms in a stretch of calm windows."""

    alarms: int
    windows: int
    monthly: float
    low: float
    high: float
    """95 % interval of the monthly rate (Garwood 1936)."""
    share: float
    """Share of windows in alarm."""


def rate(alarmed: npt.NDArray[np.bool_]) -> Rate:
    """Return the false alarms of calm windows (n,)."""
    count, months = episodes(alarmed), len(alarmed) / MONTH
    low = float(special.gammaincinv(count, 0.025)) if count else 0.0
    high = float(special.gammaincinv(count + 1, 0.975))
    return Rate(count, len(alarmed), count / months, low / months, high / months, float(alarmed.mean()))


def limit(calm: Scores, *, ladder: bool) -> float:
    """Return the score that calm windows (n,) reach as often as the budget allows.

    Measured scores: the peaks of clusters above a high quantile, the thirty largest at most, exceed it by amounts taken as exponential
    (scores are logarithms of probabilities, or grow with them), and the limit is where as many are left as the budget has in as many
    windows (Pickands 1975 with shape 0). Numbers of settings: the mildest that keeps to the budget in these windows; infinite if none does.
    """
    allowed = BUDGET * len(calm) / MONTH
    if ladder:
        return next((rank for rank in np.unique(calm[calm > 0]) if episodes(calm >= rank) <= allowed), float(calm.max(initial=0.0)) + 1.0)
    threshold = float(np.quantile(calm, 1.0 - min(max(_PEAKS, _LEAST_EXCESSES / len(calm)), 1.0)))
    peaks = _peaks(calm, threshold)
    if len(peaks) > _MOST_PEAKS:
        threshold = float(np.sort(peaks)[-_MOST_PEAKS - 1])
        peaks = _peaks(calm, threshold)
    if len(peaks) < _LEAST_PEAKS or not threshold < calm.max():
        return math.inf
    return threshold + float(np.mean(peaks - threshold)) * math.log(max(len(peaks) / allowed, 1.0))


def _peaks(scores: Scores, threshold: float) -> Scores:
    """Return the largest score of each cluster above a threshold."""
    at = np.flatnonzero(scores > threshold)
    clusters = np.split(at, np.flatnonzero(np.diff(at) > QUIET) + 1)
    return np.array([scores[each].max() for each in clusters if each.size])


def delay(alarmed: npt.NDArray[np.bool_]) -> float:
    """Return in which window after a change (n,) the alarm came, from 1; infinite if it did not."""
    return float(np.argmax(alarmed)) + 1.0 if alarmed.any() else math.inf
