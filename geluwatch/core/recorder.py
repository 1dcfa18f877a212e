"""Learns what calm looks like from closed windows, in bounded memory, until a baseline is made of it.

The first windows are kept whole (their channel moments), so that each can be scored against all the others. From then on
a window is scored, as it comes, against what the windows before it say, and only its scores stay: a few bytes instead of
kilobytes, so that a baseline may cover weeks. The reference takes part in every window either way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from geluwatch.config import Config
from geluwatch.core import calibrate, histogram, score
from geluwatch.core.average import Averages, replay
from geluwatch.core.calibrate import Recorded
from geluwatch.core.looks import tamed
from geluwatch.core.window import nbytes
from geluwatch.errors import BaselineError
from geluwatch.records import STATISTICS, Baseline, Calm, Floats, Histogram, Moments, PointKey, PointWindow, Reference, Site, Window

KEPT_WINDOWS = 144
"""Windows kept whole."""

KEPT_BYTES = 256 * 2**20
"""Most memory of windows kept whole; fewer are kept of very wide or deep models."""

LEAST_KEPT = 16
"""Windows kept whole whatever they take: fewer would make no reference."""

LONGEST = 20 * 24 * 60
"""Windows whose scores are kept: twenty days of minutes, three quarters of which hold each hour of the week twice."""

CALM_BYTES = 64 * 2**20
"""Most memory of scores; of very deep models those of every second window are kept, or every fourth, and so on."""

# Of a float64, a float32's mantissa; its range stays, for squares of finite activations may exceed a float32.
_KEPT_BITS = np.int64(-1 << 29)
# A reference is learnt anew when there is this much more to learn from: seldom, for it costs as much as many windows.
_GROWTH = 1.25
# Neighbours left out on either side of a replayed window, as a share of the baseline: traffic resembles what came just before.
_GAP = 1 / 8


@dataclass(slots=True)
class _Sums:
    """Running sums at one (layer, point); about the first window's vector, so that the variance from squares is exact."""

    origin: Floats
    total: Floats
    squares: Floats
    values: Histogram
    windows: int = 0
    averages: Averages | None = None
    rows: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)

    def add(self, vector: Floats, rows: int, requests: float) -> None:
        self._take(vector if self.averages is None else score.nearer(self.averages.calm, vector))
        self.windows += 1
        if len(self.rows) < KEPT_WINDOWS:
            self.rows.append(float(rows))
            self.requests.append(requests)

    def _take(self, vector: Floats) -> None:
        away = vector - self.origin
        self.total += away
        self.squares += np.square(away)

    def settle(self, vectors: Floats) -> None:
        """Take the vectors (m, 2C) of the windows so far anew, with channels that are far out in one of them brought nearer."""
        self.total[:], self.squares[:] = 0.0, 0.0
        for vector in tamed(vectors, score.WILD):
            self._take(vector)

    def learn(self) -> Reference:
        mean = self.total / self.windows
        spread = np.maximum(self.squares - self.windows * np.square(mean), 0.0) / max(self.windows - 1, 1)
        typical = float(np.median(self.rows)), self.windows, float(np.median(self.requests))
        return score.reference(self.origin + mean, spread, *typical)


class Recorder:
    """Gathers closed windows for the next baseline."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.closed = 0
        """Windows seen."""
        self.left_out = 0
        """Of those, unfit for a baseline."""
        self._kept: list[Window] = []
        self._full = False
        self._sums: dict[PointKey, _Sums] = {}
        self._later: deque[tuple[float, npt.NDArray[np.float32]]] = deque()
        self._every = 1
        """Windows from one whose scores are kept to the next."""
        self._mixed = ""
        self._learnt = 0
        self._began = 0.0
        self._recorded = Recorded(0, 0.0)
        self._fit = 0

    def add(self, window: Window, layers: tuple[str, ...]) -> None:
        """Take a closed window; `layers` are those that the census says deliver rows."""
        self.closed += 1
        if not window.clean or not self._enough(window, layers) or not self._same_widths(window):
            self.left_out += 1
            return
        self._fit += 1
        self._began = self._began if self._fit > 1 else window.ended
        self._recorded = Recorded(self._fit, window.ended - self._began)
        vectors = {key: score.vector(seen.moments) for key, seen in window.points.items()}
        self._room()
        if self._full:
            self._score(window, vectors)
        self._fold(window, vectors)
        if not self._full:
            self._kept.append(_light(window))

    def _enough(self, window: Window, layers: tuple[str, ...]) -> bool:
        least = self._config.minimum_rows
        return all((layer, "pre") in window.points and window.points[layer, "pre"].moments.rows >= least for layer in layers)

    def _same_widths(self, window: Window) -> bool:
        """Return whether each layer has the width it had before; else note it: what was gathered belongs to another model."""
        for key, seen in window.points.items():
            have = self._sums.get(key)
            if have is not None and have.origin.size != 2 * seen.moments.mean.size:
                widths = sorted((have.origin.size // 2, seen.moments.mean.size))
                self._mixed = (
                    f"{key[0]} had {widths[0]} and {widths[1]} channels in different windows, which cannot be compared; "
                    "record on traffic of one width."
                )
                return False
        return True

    def _room(self) -> None:
        """Stop keeping windows whole when there are enough, or they take too much memory."""
        if self._full or len(self._kept) < LEAST_KEPT:
            return
        self._full = len(self._kept) >= KEPT_WINDOWS or sum(map(nbytes, self._kept)) * (1 + 1 / len(self._kept)) > KEPT_BYTES

    def _fold(self, window: Window, vectors: Mapping[PointKey, Floats]) -> None:
        for key, vector in vectors.items():
            seen = window.points[key]
            sums = self._sums.get(key)
            if sums is None:
                sums = self._sums[key] = _Sums(vector, np.zeros_like(vector), np.zeros_like(vector), histogram.empty())
            sums.add(vector, seen.moments.rows, window.requests)
            sums.values = histogram.bounded(histogram.merge([sums.values, seen.histogram]))

    def _score(self, window: Window, vectors: Mapping[PointKey, Floats]) -> None:
        """Score a window against what those before it say."""
        if self._fit > self._learnt * _GROWTH:
            self._learnt = self._fit
            for key, sums in self._sums.items():
                self._learn(key, sums)
        scores = np.full((len(STATISTICS), len(self._sums), len(self._config.horizons)), np.nan, np.float32)
        for place, (key, sums) in enumerate(self._sums.items()):
            if key in vectors and sums.averages is not None:
                sums.averages.add(vectors[key], window.points[key].moments.rows, window.requests)
                scores[:, place] = sums.averages.statistics()
        if self._fit % self._every == 0:
            self._later.append((window.ended, scores))
        if len(self._later) > max(CALM_BYTES // max(scores.nbytes, 1), LEAST_KEPT):
            self._every *= 2
            newest_stays = self._fit % self._every == 0
            self._later = deque(list(self._later)[(len(self._later) - newest_stays) % 2 :: 2])
        while len(self._later) * self._every > max(LONGEST - len(self._kept), 1):
            self._later.popleft()

    def _learn(self, key: PointKey, sums: _Sums) -> None:
        """Compare what comes with everything so far; averages begin with the windows that were kept whole."""
        if sums.averages is not None:
            sums.averages.rebase(sums.learn())
        elif sums.windows > 1:
            if sums.windows == len(self._kept):
                sums.settle(self._vectors(key))
            sums.averages = Averages(sums.learn(), self._config.horizons)
            for window in self._kept:
                if (seen := window.points.get(key)) is not None:
                    sums.averages.add(score.vector(seen.moments), seen.moments.rows, window.requests)

    def _vectors(self, key: PointKey) -> Floats:
        """Return the vectors (m, 2C) of those of the windows kept whole that hold a (layer, point)."""
        return np.stack([score.vector(window.points[key].moments) for window in self._kept if key in window.points])

    def keys(self) -> tuple[PointKey, ...]:
        """Return the (layer, point) keys that every fit window held, in the model's order."""
        return tuple(key for key, sums in self._sums.items() if sums.windows == self._fit)

    def calm(self) -> Calm:
        """Return the scores of the windows gathered, without those that were scored when little was known.

        Once the windows kept whole are no more than a quarter, the first quarter is left out: compared with what a few hours
        had shown, it looks wilder than the same traffic will.
        """
        keys, young, later = self.keys(), int(self._fit * calibrate.YOUNG), list(self._later)
        place_of = {key: place for place, key in enumerate(self._sums)}
        places = [place_of[key] for key in keys]
        whole = young < len(self._kept) and self._every == 1
        if not whole:
            later = later[max(0, len(later) - (self._fit - young) // self._every) :]
        shape = (len(later), len(STATISTICS), len(keys), len(self._config.horizons))
        scores = np.array([scores[:, places] for _, scores in later], np.float32).reshape(shape)
        ended = np.array([ended for ended, _ in later])
        if whole:
            scores = np.concatenate([self._replayed(keys).astype(np.float32), scores])
            ended = np.concatenate([[window.ended for window in self._kept], ended])
        return Calm(keys, self._config.horizons, ended, scores, self._every)

    def _replayed(self, keys: tuple[PointKey, ...]) -> Floats:
        """Return the scores (n, 4, K, H) of the windows kept whole, each against all the others but its neighbours."""
        horizons, count = self._config.horizons, len(self._kept)
        scores = np.empty((count, len(STATISTICS), len(keys), len(horizons)))
        requests = np.array([window.requests for window in self._kept])
        for column, key in enumerate(keys):
            vectors = tamed(self._vectors(key), score.WILD)
            rows = np.array([window.points[key].moments.rows for window in self._kept], np.float64)
            for which, horizon in enumerate(horizons):
                scores[:, :, column, which] = replay(vectors, rows, requests, horizon, max(1, round(count * _GAP))).T
        return scores

    def baseline(self, *, model: str, model_version: str, name: str, created: float, sites: tuple[Site, ...]) -> Baseline:
        """Return a baseline of what was gathered, calibrated.

        Raises:
            BaselineError: There is no window, more than a tenth of them is unfit, or a layer's width changed.
        """
        if self._mixed and self.left_out > calibrate.MOST_LEFT_OUT * self.closed:
            raise BaselineError(self._mixed)
        calibrate.refuse_unfit(self.closed, self.left_out, self._config.minimum_rows)
        calm = self.calm()
        if not self._full:
            for key in calm.keys:
                self._sums[key].settle(self._vectors(key))
        return Baseline(
            model,
            model_version,
            name,
            created,
            sites,
            windows=tuple(self._kept),
            certificate=calibrate.certify(calm, self.left_out, self._config, self._recorded),
            references={key: self._sums[key].learn() for key in calm.keys},
            histograms={key: self._sums[key].values for key in calm.keys},
            calm=calm,
        )


def revived(baseline: Baseline, config: Config) -> Baseline:
    """Return a baseline with everything that judging needs; an earlier release kept windows only, or found limits in another way."""
    if baseline.calm is not None and baseline.certificate.method == calibrate.METHOD:
        return baseline
    if baseline.calm is not None:
        return replace(baseline, certificate=calibrate.again(baseline.calm, baseline.certificate, config))
    recorder = Recorder(config)
    for window in baseline.windows:
        recorder.add(window, ())
    recorder.closed += baseline.certificate.left_out
    recorder.left_out += baseline.certificate.left_out
    names = {"model": baseline.model, "model_version": baseline.model_version, "name": baseline.name}
    made = recorder.baseline(**names, created=baseline.created, sites=baseline.sites)
    return replace(
        baseline, windows=made.windows, certificate=made.certificate, references=made.references, histograms=made.histograms, calm=made.calm
    )


def _light(window: Window) -> Window:
    """Return a window without its histograms, which are counted together, and with moments to the precision of a reference.

    The low halves of the moments would be half of every stored baseline, and no noise is smaller than a float32's rounding.
    """
    return replace(window, points={key: _rounded(seen) for key, seen in window.points.items()})


def _rounded(seen: PointWindow) -> PointWindow:
    mean, m2 = ((part.view(np.int64) & _KEPT_BITS).view(np.float64) for part in (seen.moments.mean, seen.moments.m2))
    return replace(seen, histogram=histogram.empty(seen.histogram.bits), moments=Moments(seen.moments.rows, mean, m2))
