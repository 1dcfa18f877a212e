"""What those can reach who know what will happen: a detector that is told which layers will change, and into what.

Of independent normal numbers the likelihood ratio of what will be to what is, summed up and never below nothing, is the quickest chart
there is at a given rate of false alarms (Page 1954, Moustakides 1986). This one is given each series' mean and log deviation, their
covariance in the baseline, and how the very change moves them, which no detector in service is. It is a measure for shifts of mean and
scale, and no bound for what shows in single values, such as a coarser grid, nor where windows remember much of each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from . import tuning
from .cells import LEAD, TUNE, Case, Traffic
from .rivals import Rival
from .streams import Singles
from .tables import TOLD

_READS = Rival(TOLD, "", "", "summaries")


@dataclass(frozen=True)
class _Calm:
    """Normal numbers (D,) of a calm window."""

    mean: Singles
    precision: Singles

    def scores(self, numbers: Singles, change: Singles) -> tuning.Scores:
        """Return the sums of log likelihood ratios (n,) of windows' numbers (n, D), for a change (D,) of their mean."""
        direction = self.precision @ change
        walk = np.cumsum((numbers - self.mean) @ direction - 0.5 * float(change @ direction))
        found: tuning.Scores = walk - np.minimum(np.minimum.accumulate(walk), 0.0)
        return found


def delays(traffic: Traffic, case: Case) -> list[float]:
    """Return in which window each trial's change is seen, at a limit that leaves the budget on calm windows."""
    calm = [_learn(_numbers(traffic.known(seed)["summaries"])) for seed in range(traffic.size.baselines)]
    trials = [(each["baseline"], _numbers(each["file"])) for each in traffic.planted(_READS, case)]
    moved = np.array([numbers[LEAD:].mean(axis=0) - numbers[:LEAD].mean(axis=0) for _, numbers in trials])
    tune = [_numbers(traffic.calm(_READS, TUNE, seed)["file"]) for seed in range(traffic.size.baselines)]
    found = []
    for place, (seed, numbers) in enumerate(trials):
        change = np.delete(moved, place, axis=0).mean(axis=0)  # as the other trials show it
        limit = tuning.limit(calm[seed].scores(tune[seed], change), ladder=False)
        if not math.isfinite(limit):  # of a large change calm windows show nothing; a likelihood ratio exceeds x once in x windows
            limit = math.log(tuning.MONTH / tuning.BUDGET)
        found.append(tuning.delay(calm[seed].scores(numbers, change)[LEAD:] >= limit))
    return found


def _numbers(path: str) -> Singles:
    """Return each series' mean and log deviation (n, 2S) of windows' summaries (n, S, 2, C)."""
    means: Singles = np.load(path, mmap_mode="r").mean(axis=-1, dtype=np.float64)
    return means.reshape(len(means), -1)


def _learn(numbers: Singles) -> _Calm:
    return _Calm(numbers.mean(axis=0), np.linalg.inv(np.cov(numbers, rowvar=False)))
