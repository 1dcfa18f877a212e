"""Bins of time: equal, aligned to whole units in UTC, few enough to be drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from geluwatch.records import Floats

MOST_BINS = 190

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_WIDTHS = (
    _MINUTE, 5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE, _HOUR, 2 * _HOUR, 4 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Grid:
    """`bins` bins of `width` seconds, the first beginning at `start`, seconds since the epoch."""

    start: float
    width: float
    bins: int

    @property
    def end(self) -> float:
        """End of the last bin."""
        return self.start + self.width * self.bins

    @property
    def edges(self) -> Floats:
        """(bins + 1,) where bins begin and end."""
        return self.start + self.width * np.arange(self.bins + 1, dtype=np.float64)

    def place(self, started: float, ended: float) -> slice:
        """Return the bins of a span: the one that holds its middle, or, where it is longer, those that it covers by half at least.

        An hour of windows begins and ends some seconds beside the full hour, and is in one bin nevertheless.
        """
        if ended - started < 1.5 * self.width:
            at = self._bin(0.5 * (started + ended))
            return slice(at, at + 1)
        first, stop = (round((time - self.start) / self.width) for time in (started, ended))
        first = min(max(first, 0), self.bins - 1)
        return slice(first, min(max(stop, first + 1), self.bins))

    def share(self, time: float) -> float:
        """Return where a time lies, 0 at the grid's beginning and 1 at its end."""
        return min(max((time - self.start) / (self.end - self.start), 0.0), 1.0)

    def _bin(self, time: float) -> int:
        return min(max(int((time - self.start) // self.width), 0), self.bins - 1)


def grid(since: float, until: float) -> Grid:
    """Return the finest grid over a period that has at most `MOST_BINS` bins of a usual width, or of as many weeks as it takes."""
    weeks = math.ceil((until - since) / (MOST_BINS - 2) / _WIDTHS[-1])
    for width in (*_WIDTHS, weeks * _WIDTHS[-1]):
        start = since // width * width
        bins = max(math.ceil((until - start) / width), 1)
        if bins <= MOST_BINS:
            return Grid(start, width, bins)
    raise AssertionError("as many weeks as it takes are enough")
