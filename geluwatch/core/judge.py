"""Judging a closed window against an armed baseline: scores, surprise, evidence, alarms with hysteresis, the panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from geluwatch.config import Config
from geluwatch.core import calibrate, cause, comb, contrast, onset, panel, score, surprise, tail
from geluwatch.core.average import Averages
from geluwatch.core.onset import History, Onset
from geluwatch.core.surprise import FAMILIES
from geluwatch.errors import BaselineError
from geluwatch.records import POINTS, STATISTICS, Alarm, Baseline, Floats, Panel, PointKey, PointWindow, Window

# Channels are dead whose standard deviation is less than a hundredth of the baseline's, and lower than its noise explains.
_DEAD_FALL = -np.log(100.0)
_DEAD_DEVIATIONS = 8.0
# So large a share of the channels is drift for certain; of narrow layers, one.
_DEAD_SHARE = 0.005


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a window says about one (layer, point); family and horizon are those that surprise most."""

    score: float
    surprise: float
    family: str
    horizon: int
    evidence: float
    panel: Panel
    alarm: Alarm = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a window says about the whole model."""

    points: Mapping[PointKey, Judgement] = field(default_factory=dict)
    onset: Onset = field(default_factory=lambda: Onset((), {}, ""))
    cause: str = ""
    """What changed at the first layer in drift."""


class Judge:
    """Holds an armed baseline, the averages of the last windows at each (layer, point), and the alarms raised."""

    def __init__(self, baseline: Baseline, config: Config) -> None:
        if baseline.calm is None:
            raise BaselineError(f"Baseline {baseline.name!r} holds no calm scores, so nothing can be judged against it; record it again.")
        calm = calibrate.restrict(baseline.calm, baseline.certificate.horizons)
        self.baseline = baseline
        self.keys = calm.keys
        self._horizons = calm.horizons
        self._minimum_rows = config.minimum_rows
        self._tolerated = surprise.tolerated(baseline.certificate.tolerance, calm.horizons, calm.every * len(calm.ended))
        self._yardstick = surprise.measure(calm)
        self._panels = {key: panel.prepare(self._calm(key), key[1]) for key in calm.keys}
        self._filling = {key: comb.filling(baseline.histograms[key]) for key in calm.keys}
        self._averages = {key: Averages(baseline.references[key], calm.horizons) for key in calm.keys}
        self._alarms: dict[PointKey, Alarm] = {}
        self._history = History(calm.keys, self._yardstick.layers)
        self._positions = {site.layer: site.position for site in baseline.sites}
        self._places = np.array([self._positions.get(layer, 0) for layer, _ in calm.keys])

    def judge(self, window: Window, *, spoilt: bool = False) -> Judged:
        """Return a judgement for each (layer, point) with enough rows in the window; the others are left unjudged.

        Args:
            window: What to judge.
            spoilt: Whether something else is known to be wrong with it, and told: it is then judged and not remembered,
                or the averages would go on calling drift long after the fault is mended.
        """
        scores = np.full((len(STATISTICS), len(self.keys), len(self._horizons)), np.nan)
        certain = []
        for place, key in enumerate(self.keys):
            seen = window.points.get(key)
            if seen is not None and seen.moments.rows >= self._minimum_rows:
                vector = score.vector(seen.moments)
                scores[:, place] = self._scores(key, vector, seen.moments.rows, window.requests, spoilt)
                if self._dead(key, vector) or self._rounded(key, seen, vector):
                    certain.append(place)
        at = int(surprise.stratum(window.ended, len(self._yardstick.level)))
        deviations = self._yardstick.deviations(scores, at, self._tolerated)
        self._history.add(window.started, deviations)
        surprises = self._surprises(deviations)
        surprises[0, certain, 0] = np.fmax(surprises[0, certain, 0], calibrate.CERTAIN)
        largest, scored = _largest(surprises), ~np.isnan(scores[0]).all(axis=1)
        judged: dict[PointKey, Judgement] = {}
        places: dict[PointKey, tuple[int, int]] = {}
        for place, key in enumerate(self.keys):
            if scored[place]:
                places[key] = largest[place]
                judged[key] = self._judgement(key, window.points[key], scores[0, place], surprises[:, place], places[key])
        alarmed = {key: places[key] for key, seen in judged.items() if seen.alarm}
        strongest = max(alarmed, key=lambda key: judged[key].surprise, default=None)
        began = self._history.onset(alarmed, strongest, self._positions)
        return Judged(judged, began, self._cause(began, window) or ("" if spoilt else self._channel(began, judged)))

    def _calm(self, key: PointKey) -> PointWindow:
        """Return all of the baseline's values at one (layer, point) together."""
        return PointWindow(self.baseline.histograms[key], score.pooled(self.baseline.references[key]))

    def _surprises(self, deviations: Floats) -> Floats:
        """Return the surprise (F, K, H) of the newest window's deviations.

        Once some point is in drift, a level that would be a ticket if it lasted is one elsewhere as well, so that the first layer is
        looked for among all that moved. It is no more than that, for nobody is to be paged for a burst of the traffic, unless the
        layers before it are calm: what comes in would have moved them.
        """
        limit = self.baseline.certificate.ticket_limit
        found = self._yardstick.surprise(deviations, surprise.lasting(self._history.levels(surprise.LASTING))[-1])
        if np.nanmax(found, initial=0.0) >= limit:
            levels = self._yardstick.surprise(deviations, deviations[0])[0]
            entered = contrast.before(deviations[0], self._places) < onset.COMMON
            found[0] = np.fmax(found[0], np.where(entered, levels, np.minimum(levels, limit)))
        return found

    def _cause(self, began: Onset, window: Window) -> str:
        """Return what changed where drift began: before the GELU, or after it when that alone is in drift or tells more."""
        for layer in began.layers[:1]:
            for point in POINTS:
                if (layer, point) in began.times:
                    found = cause.diagnose(self._calm((layer, point)), window.points[layer, point], point)
                    if found is not None:
                        return f"{layer}: {found.text}"
        return ""

    def _channel(self, began: Onset, judged: Mapping[PointKey, Judgement]) -> str:
        """Return which channel moved where drift began, if it is one that surprises most there."""
        for layer in began.layers[:1]:
            for key in ((layer, point) for point in POINTS):
                if key in began.times and judged[key].family == "largest":
                    component, away = self._averages[key].furthest(self._horizons.index(judged[key].horizon))
                    what, channel = divmod(component, self.baseline.references[key].mean.size // 2)
                    part = "the logarithm of its spread" if what else "its mean"
                    off = f"{abs(away):.2g} standard deviations off the baseline's"
                    return f"{layer}: {key[1]}-GELU channel {channel} moved, {part} lies {off}."
        return ""

    def _scores(self, key: PointKey, vector: Floats, rows: int, requests: float, spoilt: bool) -> Floats:
        """Return score, shift, scale and largest (4, H) of one (layer, point)."""
        reference = self.baseline.references[key]
        if vector.size != reference.mean.size:
            raise BaselineError(
                f"{key[0]} now has {vector.size // 2} channels, the armed baseline {self.baseline.name!r} has "
                f"{reference.mean.size // 2}; record a baseline for this model."
            )
        averages = self._averages[key]
        if spoilt:
            return averages.taken_with(vector, rows, requests)
        averages.add(vector, rows, requests)
        return averages.statistics()

    def _dead(self, key: PointKey, vector: Floats) -> bool:
        """Return whether channels before a GELU have ceased to vary: few of many hardly move the score, yet it is never chance."""
        if key[1] == "post":
            return False
        reference = self.baseline.references[key]
        width = reference.mean.size // 2
        fallen = vector[width:] - reference.mean[width:]
        dead = np.flatnonzero(fallen < _DEAD_FALL)
        certain = fallen[dead] < -_DEAD_DEVIATIONS * np.sqrt(reference.variance[width:][dead])
        return int(certain.sum()) >= max(1.0, _DEAD_SHARE * width)

    def _rounded(self, key: PointKey, seen: PointWindow, vector: Floats) -> bool:
        """Return whether the values have fallen on a lower precision's grid: that moves no score, and is never chance."""
        width = seen.moments.mean.size
        if np.median(vector[width:] - self.baseline.references[key].mean[width:]) < _DEAD_FALL:
            return False  # what never varies fills few cells, without having been rounded
        return comb.fallen(self.baseline.histograms[key], self._filling[key], seen.histogram) is not None

    def _judgement(self, key: PointKey, seen: PointWindow, scores: Floats, surprises: Floats, place: tuple[int, int]) -> Judgement:
        found = float(surprises[place])
        return Judgement(
            score=float(scores[place[1]]),
            surprise=found,
            family=FAMILIES[place[0]],
            horizon=self._horizons[place[1]],
            evidence=found / self.baseline.certificate.ticket_limit,
            panel=panel.measure(self._panels[key], seen),
            alarm=self._alarm(key, found),
        )

    def _alarm(self, key: PointKey, found: float) -> Alarm:
        """Return the alarm at one (layer, point): raised at a limit, cleared well below the ticket's, so that it does not flap."""
        certificate = self.baseline.certificate
        held = self._alarms.get(key, "")
        if found >= certificate.page_limit:
            held = "page"
        elif found >= certificate.ticket_limit:
            held = held or "ticket"
        elif found < tail.CLEARED * certificate.ticket_limit:
            held = ""
        self._alarms[key] = held
        return held


def _largest(surprises: Floats) -> list[tuple[int, int]]:
    """Return for each key the family and the horizon (as indices) of the largest of its surprises (4, K, H)."""
    by_key = np.nan_to_num(surprises, nan=-1.0).swapaxes(0, 1)
    families, horizons = np.unravel_index(by_key.reshape(len(by_key), -1).argmax(axis=1), by_key.shape[1:])
    return list(zip(families.tolist(), horizons.tolist(), strict=True))
