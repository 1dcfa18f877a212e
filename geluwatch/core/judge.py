"""Judging a closed window against an armed baseline: scores at every horizon, evidence, KS, one verdict."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from geluwatch.core import ks, score
from geluwatch.core.calibrate import Armed, arm
from geluwatch.errors import BaselineError
from geluwatch.records import Baseline, Floats, Point, PointKey, PointWindow


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a window says about one (layer, point); the horizon is the one with the largest share of its threshold."""

    score: float
    threshold: float
    horizon: int
    evidence: float
    distance: ks.Interval


class Judge:
    """Holds an armed baseline and the last few window vectors of each (layer, point)."""

    def __init__(self, baseline: Baseline, minimum_rows: int) -> None:
        self.baseline = baseline
        self.armed: Mapping[PointKey, Armed] = arm(baseline)
        self._minimum_rows = minimum_rows
        self._limits: dict[PointKey, dict[int, float]] = {}
        for (layer, point, horizon), limit in baseline.certificate.thresholds.items():
            self._limits.setdefault((layer, point), {})[horizon] = limit
        longest = max(baseline.certificate.horizons, default=1)
        self._recent: dict[PointKey, deque[tuple[Floats, int]]] = {key: deque(maxlen=longest) for key in self.armed}

    def judge(self, points: Mapping[PointKey, PointWindow]) -> dict[PointKey, Judgement]:
        """Return a judgement for each (layer, point) with enough rows in the window; the others are left unjudged."""
        judged = {}
        for key, armed in self.armed.items():
            seen = points.get(key)
            if seen is None or seen.moments.rows < self._minimum_rows:
                continue
            width = armed.reference.mean.size // 2
            if seen.moments.mean.size != width:
                raise BaselineError(
                    f"{key[0]} now has {seen.moments.mean.size} channels, the armed baseline {self.baseline.name!r} has {width}; "
                    "record a baseline for this model."
                )
            self._recent[key].append((score.vector(seen.moments), seen.moments.rows))
            judged[key] = self._at_worst_horizon(key, armed, seen)
        return judged

    def _at_worst_horizon(self, key: tuple[str, Point], armed: Armed, seen: PointWindow) -> Judgement:
        distance = ks.distance(seen.histogram, armed.histogram)
        recent = list(self._recent[key])
        worst = Judgement(float("nan"), float("nan"), 0, float("nan"), distance)
        for horizon, limit in sorted(self._limits.get(key, {}).items()):
            if len(recent) < horizon:
                continue
            run = recent[-horizon:]
            value = score.score(armed.reference, np.stack([vector for vector, _ in run]), np.array([rows for _, rows in run], float))
            if not worst.horizon or value / limit > worst.evidence:
                worst = Judgement(value, limit, horizon, value / limit, distance)
        return worst
