"""Weeks of a model's history, made by rule: calm, and what may happen in one. The same arguments give the same spans."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from geluwatch.core import histogram
from geluwatch.errors import UnknownBaselineError
from geluwatch.records import (
    POINTS,
    Alarm,
    Baseline,
    Certificate,
    Histogram,
    Moments,
    Nonfinite,
    PointKey,
    PointSummary,
    PointWindow,
    Resolution,
    Site,
    Span,
    Summary,
    Verdict,
    Window,
)

HOUR, DAY = 3600.0, 86400.0
MINILM = "encoder.layer.{}.intermediate.intermediate_act_fn"
LARGE = "model.decoder.layers.{}.mlp.activation_fn"

END = 1_741_608_000.0
"""Monday, 10 March 2025, 12:00 UTC."""

CAUSE = "{}: pre-GELU values moved by +0.38 standard deviations (mean -0.52, was -0.93); their spread is 1.12 times the baseline's."

CERTIFICATE = Certificate(
    windows=2880, left_out=12, seconds=2880 * 60.0, horizons=(1, 4, 16), looks=141.0, strata=24, tickets_per_month=2.0,
    pages_per_quarter=1.0, ticket_limit=6.0, page_limit=8.7, armed=True, paging=True,
)  # fmt: skip

_NO_MOMENTS = Moments(0, np.empty(0), np.empty(0))


@dataclass(frozen=True)
class Story:
    """What happens in a week. Times are hours before its end, a pair being from and to."""

    layers: int = 6
    name: str = MINILM
    drift: tuple[float, float] | None = None
    onset: int = 2
    """The layer where drift begins; those behind it follow."""
    scope: str = "model"
    strength: float = 2.6
    nonfinite: tuple[float, float] | None = None
    broken: int = 4
    """The layer of the first NaN."""
    silent: tuple[float, float] | None = None
    idle: tuple[float, float] | None = None
    mute: tuple[float, float] | None = None
    """When the last layer but one gives no rows."""
    blind: bool = False
    """Whether the last layer was blind all along."""
    baseline: str | None = "week-9"
    hours: float = 168.0
    raw: float = 24.0
    """Hours at the end that are kept window by window."""
    minutes: float = 15.0
    """Length of those windows."""
    daily: float = math.inf
    """Age in hours from which days are kept."""
    values: int = 4000
    """Values behind each distribution."""
    errors: dict[str, int] = field(default_factory=dict, hash=False)
    model: str = "minilm"
    version: str = "1"

    @property
    def names(self) -> tuple[str, ...]:
        """Its layers in the model's order."""
        return tuple(self.name.format(place) for place in range(self.layers))


@dataclass(frozen=True)
class Week:
    """A `geluwatch.ports.History` and a `geluwatch.ports.BaselineStore` of one story."""

    story: Story
    end: float = END

    def spans(self, model: str, model_version: str | None, since: float, until: float) -> Iterator[Span]:
        """Yield the story's spans within a period."""
        if model != self.story.model or model_version not in {None, self.story.version}:
            return
        for resolution, started, ended in self._times():
            if since < ended <= until and not self._within(self.story.silent, 0.5 * (started + ended)):
                yield self._span(resolution, started, ended)

    def widened(self, model: str, model_version: str | None, since: float, until: float) -> tuple[float, float]:  # noqa: ARG002
        """Return the period: stories begin and end with whole hours."""
        return since, until

    def load(self, model: str, model_version: str, name: str) -> Baseline:
        """Return the baseline, if it is asked for."""
        if (model, model_version, name) != (self.story.model, self.story.version, self.story.baseline):
            raise UnknownBaselineError(f"No baseline {name!r} is stored.")
        states = ["observed"] * self.story.layers
        if self.story.blind:
            states[-1] = "blind"
        sites = tuple(
            Site(
                layer, place, "module", "GELUActivation", "erf", states[place], "compiled before attach" if states[place] == "blind" else ""
            )  # type: ignore[arg-type]
            for place, layer in enumerate(self.story.names)
        )
        counted = {
            (layer, point): _values(place, point, 0.0, self.story.values)
            for place, layer in enumerate(self.story.names)
            for point in POINTS
            if states[place] == "observed"
        }
        created = self.end - 12 * DAY
        return Baseline(model, model_version, name, created, sites, (), CERTIFICATE, histograms=counted)

    def save(self, baseline: Baseline) -> None:
        """Refuse: a story is written."""
        raise NotImplementedError

    def names(self, model: str, model_version: str) -> tuple[str, ...]:  # noqa: ARG002
        """Return the baseline's name."""
        return (self.story.baseline,) if self.story.baseline else ()

    def close(self) -> None:
        """Do nothing."""

    def _times(self) -> Iterator[tuple[Resolution, float, float]]:
        """Yield resolution, beginning and end of each span, a second beside the full hour, as windows are."""
        story, at = self.story, self.end - self.story.hours * HOUR
        while at < self.end - 1.0:
            age = (self.end - at) / HOUR
            resolution: Resolution = "day" if age > story.daily else "hour" if age > story.raw else "raw"
            length = {"day": DAY, "hour": HOUR, "raw": 60.0 * story.minutes}[resolution]
            yield resolution, at - 20.0, at + length - 20.0
            at += length

    def _within(self, hours: tuple[float, float] | None, time: float) -> bool:
        return hours is not None and self.end - hours[0] * HOUR <= time < self.end - hours[1] * HOUR

    def _span(self, resolution: Resolution, started: float, ended: float) -> Span:
        story, middle = self.story, 0.5 * (started + ended)
        rng = np.random.default_rng(int(ended) % (1 << 31))
        windows = 1 if resolution == "raw" else round((ended - started) / 60.0)
        daily = 0.55 + 0.45 * math.sin(2 * math.pi * (middle / DAY - 0.3))
        forwards = 0 if self._within(story.idle, middle) else round((ended - started) * 6.0 * (0.25 + daily) * rng.uniform(0.92, 1.08))
        broken = self._within(story.nonfinite, middle)
        said, points = self._points(rng, middle, windows, forwards)
        drifting = tuple(dict.fromkeys(layer for (layer, _), each in said.items() if each.alarm))
        nonfinite = self._nonfinite(said) if broken else {}
        first = story.name.format(story.broken) if broken else None
        mute = self._within(story.mute, middle) and forwards > 0
        window = Window(started, ended, forwards, forwards // 40, points, nonfinite, first, (story.names[-2],) if mute else ())
        verdict: Verdict = "page" if broken or any(each.alarm == "page" for each in said.values()) else "ticket" if drifting else "ok"
        if story.baseline is None and not broken:
            verdict = "warming"
        return Span(story.model, story.version, resolution, "serve-1:412" if resolution == "raw" else "", windows, window, Summary(
            verdicts={verdict: windows}, points=said, drifting=drifting, scope=story.scope if drifting else "",
            cause=CAUSE.format(drifting[0]) if drifting else "", first_nonfinite=first, baseline=story.baseline,
            nonfinite_forwards=forwards // 300 if broken else 0, hook_seconds=0.0041 * 0.018 * forwards, flush_seconds=0.002 * forwards,
            forward_seconds=0.018 * forwards, errors=story.errors if middle > self.end - 20 * HOUR else {}, blind=int(story.blind) + mute,
        ))  # fmt: skip

    def _points(
        self, rng: np.random.Generator, middle: float, windows: int, forwards: int
    ) -> tuple[dict[PointKey, PointSummary], dict[PointKey, PointWindow]]:
        story = self.story
        said: dict[PointKey, PointSummary] = {}
        shown: dict[PointKey, PointWindow] = {}
        mute = story.names[-2] if self._within(story.mute, middle) else None
        for place, layer in enumerate(story.names):
            if layer == mute or (story.blind and place == story.layers - 1):
                continue
            force = self._force(place, middle)
            for point in POINTS:
                evidence = 0.0
                if story.baseline is not None:
                    calm = 0.16 + 0.05 * (place * 7 % 5) / 4 + rng.gamma(2.0, 0.035) + 0.03 * math.log10(windows)
                    evidence = calm + force * (1.0 if point == "pre" else 0.7) * rng.uniform(0.9, 1.1)
                alarm: Alarm = "page" if evidence >= 1.45 else "ticket" if evidence >= 1.0 else ""
                broken = 1536 * (forwards // 300) if self._within(story.nonfinite, middle) and place >= story.broken else 0
                said[layer, point] = PointSummary(evidence, 0.004 + 0.02 * force + rng.uniform(0, 0.003), alarm, broken)
                if forwards:
                    counted = _values(place, point, round(2 * force) / 2, story.values)
                    shown[layer, point] = PointWindow(counted, _NO_MOMENTS)
        return said, shown

    def _force(self, place: int, middle: float) -> float:
        """Return how far a layer has moved: it begins at one, grows over some hours, and fades behind it."""
        story = self.story
        if story.drift is None or not self._within(story.drift, middle) or (story.scope == "model" and place < story.onset):
            return 0.0
        since = middle - (self.end - story.drift[0] * HOUR)
        grown = min(1.0, 0.35 + since / (10 * HOUR))
        return story.strength * grown * 0.82 ** abs(place - story.onset)

    def _nonfinite(self, said: dict[PointKey, PointSummary]) -> dict[str, Nonfinite]:
        behind = self.story.names[self.story.broken :]
        return {layer: Nonfinite(120, 120 if layer == behind[0] else 0) for layer in behind if (layer, "pre") in said}


@lru_cache(maxsize=4096)
def _values(place: int, point: str, force: float, size: int) -> Histogram:
    """Return what a layer's values look like when it has moved by some force: skewed, with long tails, as before a transformer's GELU."""
    rng = np.random.default_rng(place)
    pre = -0.93 + 0.04 * (place % 7) + 0.72 * rng.standard_t(6, size) + 0.5 * rng.gamma(0.35, 1.0, size)
    pre = (1.0 + 0.05 * force) * pre + 0.15 * force
    return histogram.from_values((pre if point == "pre" else pre * ndtr(pre)).astype(np.float32))


EVENTFUL = Story(drift=(66.0, 31.0), nonfinite=(112.0, 110.0), silent=(96.0, 87.0), mute=(20.0, 0.0), errors={"mask": 3})
CALM = Story()
LARGEST = Story(
    layers=48, name=LARGE, model="giant", drift=(30.0, 0.0), onset=17, strength=3.4, nonfinite=(120.0, 118.0), broken=31, idle=(80.0, 70.0),
    blind=True, daily=120.0,
)  # fmt: skip
