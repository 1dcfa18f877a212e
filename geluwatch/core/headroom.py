"""Headroom: the bits between the largest magnitude seen and what the dtype can hold, and an overflow told before it comes.

A dense layer overflows before the values that it adds up: a sum of 1,536 products of random signs is some sqrt(1,536) = 39
times as large as one of them, which is 5.3 bits. Less than six bits are therefore little, unless it was so all along. And a
layer norm squares what it is given: where the range of the dtype is that of the arithmetic, which it is in all but float16,
half of the exponents are out of reach, and the six bits count from there.

A trend is the Theil-Sen slope of the last windows, less what noise could account for; it warns when it leads there soon.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from scipy import special

from geluwatch.core import gross
from geluwatch.records import Alarm, Floats, Headroom, Histogram, PointKey, Rows, Window

LIMITS: Mapping[str, float] = {
    "float16": 65504.0,
    "bfloat16": 3.3895313892515355e38,
    "float32": 3.4028234663852886e38,
    "float64": 1.7976931348623157e308,
}
"""Largest finite value of each dtype."""

RESERVED: Mapping[str, float] = {"float16": 0.0, "bfloat16": 64.0, "float32": 64.0, "float64": 512.0}
"""Bits of headroom that are of no use, because squares overflow. Norms of float16 are computed in float32."""

MARGIN = 6.0
"""Bits beyond the reserved ones from which an overflow lies ahead, where there were more before."""

_NEAR = 2.0
# How much less than before that must be, in bits, and for how many windows: what is always close to the limit scatters, and one
# odd text throws the largest value of a window far out.
_FALLEN, _IN_A_ROW = 1.5, 3
# An alarm ends where this much more than the margin is left.
_RECOVERED = 1.0

HORIZON, PAGE_HORIZON = 120.0, 15.0
"""Windows left from which a trend is a ticket and a page: two hours and a quarter of one, at a minute each."""

_KEPT = 24
_LEAST = 6
_FIRST = 16
# Chance that noise alone makes such a slope, a window and point; and the deviations of the slope if the values wander instead.
_CHANCE = 1e-6
_WANDERING = 4.0
# A trend is of interest once magnitudes have doubled along it.
_LEAST_FALL = 1.0
# Logarithms of maxima scatter by this much at least, in bits, however calm the last windows were by luck.
_NOISE = 0.05
_MAD = 1.4826


@dataclass(slots=True)
class _Track:
    """The headroom of one (layer, point) over the last windows."""

    dtype: str
    last: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    ended: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    first: list[float] = field(default_factory=list)
    low: int = 0
    """Windows in a row below the margin."""
    shown: Headroom = field(default_factory=Headroom)


class Headrooms:
    """Follows the headroom of every (layer, point) from window to window."""

    def __init__(self) -> None:
        self._tracks: dict[PointKey, _Track] = {}
        self._dtypes: dict[str, str] = {}

    def see(self, rows: Iterable[Rows]) -> None:
        """Note in which dtype each layer runs; of several, in one window, the one that holds least counts."""
        for item in rows:
            known = self._dtypes.get(item.layer, item.dtype)
            self._dtypes[item.layer] = min(known, item.dtype, key=LIMITS.__getitem__)

    def add(self, window: Window, minimum_rows: int, calm: Mapping[PointKey, Histogram]) -> None:
        """Take a closed window, whose rows have been seen.

        Args:
            window: The window.
            minimum_rows: Points with fewer rows are passed over: the largest of few values is small by chance.
            calm: The armed baseline's values, by (layer, point); what was so in them is no news.
        """
        for key, seen in window.points.items():
            dtype = self._dtypes.get(key[0])
            if dtype is None or seen.moments.rows < minimum_rows:
                continue
            now = bits(seen.histogram, dtype)
            if now == math.inf:
                continue  # nothing but zeros, or nothing finite: then it has overflown, and keeps its alarm
            if key not in self._tracks or self._tracks[key].dtype != dtype:
                self._tracks[key] = _Track(dtype)
            _follow(self._tracks[key], now, window.ended, bits(calm[key], dtype) if key in calm else None)
        self._dtypes.clear()

    def at(self, key: PointKey) -> Headroom:
        """Return the headroom of a (layer, point)."""
        return self._tracks[key].shown if key in self._tracks else Headroom()

    def alarms(self) -> set[Alarm]:
        """Return the alarms that are raised anywhere."""
        return {track.shown.alarm for track in self._tracks.values()}


def bits(values: Histogram, dtype: str) -> float:
    """Return the headroom of counted values; infinite where all are zero."""
    low, high = gross.extremes(values)
    largest = max(-low, high)
    return math.log2(LIMITS[dtype] / largest) if largest else math.inf


def trend(last: Floats) -> float:
    """Return how many bits the headroom (n,) certainly lost a window, 0 where noise could have done it.

    The slope is Theil's and Sen's. It is lowered by what chance gives once in a million windows if the values scatter about
    a line, by their deviation from it; or by four deviations of a random walk with such steps, whichever is more.
    """
    count = last.size
    if count < _LEAST:
        return 0.0
    times = np.arange(count)
    pairs = np.triu_indices(count, 1)
    slope = float(np.median((last[pairs[0]] - last[pairs[1]]) / (times[pairs[1]] - times[pairs[0]])))
    left = last + slope * times
    scatter = max(_NOISE, _MAD * float(np.median(np.abs(left - np.median(left)))), float(np.std(left)))
    steps = np.diff(left)
    wander = float(np.std(steps)) * math.sqrt(1.2 / count)
    if slope * (count - 1) < _LEAST_FALL:
        return 0.0
    noise = max(_quantile(count) * scatter * math.sqrt(12.0 / (count * (count**2 - 1))), _WANDERING * wander)
    return max(0.0, slope - noise)


@cache
def _quantile(count: int) -> float:
    return float(-special.stdtrit(count - 2, _CHANCE))  # Student's quantile


def _follow(track: _Track, now: float, ended: float, known: float | None) -> None:
    track.last.append(now)
    track.ended.append(ended)
    if len(track.first) < _FIRST:
        track.first.append(now)
    usual = min(track.first) if known is None else known
    lost = trend(np.array(track.last))
    room = now - RESERVED[track.dtype]
    windows = max(0.0, room) / lost if lost > 0 else math.nan
    held = track.shown.alarm
    track.low = track.low + 1 if room < MARGIN and now < usual - _FALLEN else 0
    level = _level(track.low, room, windows)
    little = room < MARGIN + _RECOVERED and now < usual - 0.5 * _FALLEN
    if held and not level and (little or windows < 2 * HORIZON):
        level = "ticket"
    length = (track.ended[-1] - track.ended[0]) / (len(track.ended) - 1) if len(track.ended) > 1 else math.nan
    track.shown = Headroom(now, windows, windows * length, level)


def _level(low: int, room: float, windows: float) -> Alarm:
    """Return the alarm: a page where the limit is near in time or in bits."""
    lasting = low >= _IN_A_ROW
    if windows <= PAGE_HORIZON or (lasting and room < _NEAR):
        return "page"
    return "ticket" if lasting or windows <= HORIZON else ""
