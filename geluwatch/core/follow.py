"""Following a training run: each window is judged against earlier windows of the same run, some way back.

In training the distribution moves on purpose, so no fixed baseline lasts. The reference here is a stretch of windows that
ended `lag` windows ago and moves along. Its variance from window to window holds what learning moved within the stretch,
and that is what makes the score forgiving: where every channel runs on at an even pace, the score stands at one and the
same value, whatever the pace. It rises where something moves much faster than it did: a layer that dies, a
scale that jumps, representations that fall together. The limit is far above that value, and above all that the point
has lately shown.

No budget of false alarms is promised: how a run will learn is in no past window. A learning rate that is raised at once
can alarm.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from geluwatch.config import Config
from geluwatch.core import cause, histogram, moments, panel, score
from geluwatch.core.judge import Judged, Judgement
from geluwatch.core.onset import Onset
from geluwatch.core.window import nbytes
from geluwatch.errors import ConfigError
from geluwatch.records import POINTS, Alarm, Floats, PointKey, PointWindow, Reference, Window

NAME = "following"
"""What stands for the baseline's name in reports."""

MOST_BYTES = 256 * 2**20
"""Most memory of windows that are held; of very wide or deep models the stretch is shorter."""

LEAST_WINDOWS = 8
"""Windows in a stretch, at the least: of fewer the variance would be hardly known."""

# Times its largest recent score, and times that of an even pace, from which a point is in alarm.
_FACTOR = 4.0
_CLEARED = 0.5


class _Seen(NamedTuple):
    """One point in one window."""

    window: PointWindow
    vector: Floats
    requests: float


@dataclass(slots=True)
class _Track:
    """One (layer, point): the windows held, the oldest first, its recent calm scores, and its alarm."""

    held: deque[_Seen]
    scores: deque[float]
    alarm: Alarm = ""
    began: float = 0.0
    reference: tuple[PointWindow, panel.Reference] | None = None
    """The stretch's values together; made anew now and then, for it costs more than all the rest."""
    age: int = 0

    @property
    def full(self) -> bool:
        """Whether stretch and lag are filled."""
        return len(self.held) == self.held.maxlen


@dataclass(slots=True)
class Follower:
    """Judges windows of a training run against windows some way back.

    Args:
        config: For the rows that a window needs.
        windows: Length of the stretch that is the reference.
        lag: Windows between the stretch and the window judged.

    Raises:
        ConfigError: The stretch is too short, or there is no lag.
    """

    config: Config
    windows: int = 16
    lag: int = 4
    since: float | None = None
    """When the oldest window of the reference ended; None while there is none."""
    _tracks: dict[PointKey, _Track] = field(default_factory=dict)
    _ends: deque[float] = field(default_factory=deque)
    _held_still: int = 0
    _pace: float = 0.0

    def __post_init__(self) -> None:
        for name, value, least in (("windows", self.windows, LEAST_WINDOWS), ("lag", self.lag, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}.")
        self._pace = even_pace(self.windows, self.lag)

    def judge(self, window: Window, positions: dict[str, int]) -> Judged:
        """Return a judgement for each point that has been there long enough, and let the reference move on.

        While anything is in alarm the reference stands still, or it would soon take the fault for granted; after a
        stretch's length it begins anew.
        """
        judged: dict[PointKey, Judgement] = {}
        if window.first_nonfinite is None:
            judged = {key: found for key, seen in window.points.items() if (found := self._judge(key, seen, window)) is not None}
        onset = self._onset(judged, positions)
        said = self._cause(onset, window)
        if not onset.layers:
            self._held_still = 0
            self._move_on(window)
        else:
            self._stand_still()
        return Judged(judged, onset, said)

    def _judge(self, key: PointKey, seen: PointWindow, window: Window) -> Judgement | None:
        track = self._tracks.get(key)
        if track is None or not track.full or seen.moments.rows < self.config.minimum_rows:
            return None
        stretch = [track.held[place] for place in range(len(track.held) - self.lag)]
        if stretch[0].vector.size != 2 * seen.moments.mean.size:
            return None
        found = _score(_reference(stretch), score.vector(seen.moments))
        limit = _FACTOR * max(self._pace, max(track.scores, default=0.0))
        evidence = max(math.log(max(found, 1.0)) / math.log(limit), 0.0)
        self._raise(track, evidence, window.started)
        if not track.alarm:
            track.scores.append(found)
        if track.reference is None or track.age >= self.lag:
            track.reference, track.age = _together(stretch, key), 0
        measured = panel.measure(track.reference[1], seen)
        return Judgement(found, math.nan, "", 1, evidence, measured, track.alarm)

    @staticmethod
    def _raise(track: _Track, evidence: float, started: float) -> None:
        if evidence >= 1.0 and not track.alarm:
            track.alarm, track.began = "ticket", started
        elif evidence < _CLEARED:
            track.alarm = ""

    def _move_on(self, window: Window) -> None:
        """Take a window into the reference's future."""
        if not window.clean:
            return
        length = self.lag + self._affordable(window)
        for key, seen in window.points.items():
            if seen.moments.rows < self.config.minimum_rows:
                continue
            track = self._tracks.get(key)
            if track is None or (track.held and track.held[-1].vector.size != 2 * seen.moments.mean.size):
                track = self._tracks[key] = _Track(deque(maxlen=length), deque(maxlen=2 * self.windows))
            track.held.append(_Seen(seen, score.vector(seen.moments), window.requests))
            track.age += 1
        self._ends.append(window.ended)
        while len(self._ends) > length:
            self._ends.popleft()
        self.since = self._ends[0] if any(track.full for track in self._tracks.values()) else None

    def _stand_still(self) -> None:
        """Let a window in alarm pass by; after a stretch of them begin anew with what there is."""
        self._held_still += 1
        if self._held_still >= self.windows:
            self._tracks, self._held_still, self.since = {}, 0, None
            self._ends.clear()

    def _affordable(self, window: Window) -> int:
        """Return how long the stretch may be."""
        return max(LEAST_WINDOWS, min(self.windows, MOST_BYTES // (2 * max(nbytes(window), 1)) - self.lag))

    def _onset(self, judged: dict[PointKey, Judgement], positions: dict[str, int]) -> Onset:
        """Return the layers in alarm, the earliest first, and of those that came together the first in the model."""
        times = {key: self._tracks[key].began for key, found in judged.items() if found.alarm}
        by_layer: dict[str, float] = {}
        for (layer, _), began in times.items():
            by_layer[layer] = min(began, by_layer.get(layer, began))
        order = sorted(by_layer, key=lambda layer: (by_layer[layer], positions.get(layer, 0)))
        alone = len({layer for layer, _ in self._tracks}) == 1
        return Onset(tuple(order), times, ("unknown" if alone else "model") if order else "")

    def _cause(self, onset: Onset, window: Window) -> str:
        for layer in onset.layers[:1]:
            for point in POINTS:
                if (layer, point) in onset.times and (reference := self._tracks[layer, point].reference) is not None:
                    found = cause.diagnose(reference[0], window.points[layer, point], point)
                    if found is not None:
                        return f"{layer}: {found.text}"
        return ""


def even_pace(windows: int, lag: int) -> float:
    """Return the score of a window whose channels all run on at an even pace, whatever it is, without any noise.

    A window lies (windows + 1) / 2 + lag steps from the middle of the stretch, whose steps have the variance
    windows (windows + 1) / 12.
    """
    away = (windows + 1) / 2 + lag
    z = np.full((1, 2), away / math.sqrt(windows * (windows + 1) / 12))
    return float(score.statistics(z, np.array([1.0 + 1.0 / windows]), np.zeros(1), np.zeros(1, np.float32))[0, 0])


def _reference(stretch: list[_Seen]) -> Reference:
    vectors = np.stack([seen.vector for seen in stretch])
    rows = float(np.median([seen.window.moments.rows for seen in stretch]))
    requests = float(np.median([seen.requests for seen in stretch]))
    return score.reference(vectors.mean(axis=0), vectors.var(axis=0, ddof=1), rows, len(stretch), requests)


def _score(calm: Reference, vector: Floats) -> float:
    z = score.standardised(calm, vector)[None, :]
    return float(score.statistics(z, np.array([1.0 + 1.0 / calm.windows]), np.zeros(1), score.bias(calm))[0, 0])


def _together(stretch: list[_Seen], key: PointKey) -> tuple[PointWindow, panel.Reference]:
    """Return all values of a stretch together, and ready to be compared with."""
    values = histogram.bounded(histogram.merge([seen.window.histogram for seen in stretch]))
    held = PointWindow(values, moments.merge([seen.window.moments for seen in stretch]))
    return held, panel.prepare(held, key[1])
