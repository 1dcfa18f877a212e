"""Stretches in alarm: which spans belong together, where each began, and whether it is still on."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from geluwatch.analysis.report.findings import Episode, Kind
from geluwatch.records import Alarm, Span

JOIN = 3600.0
"""Seconds of calm that an episode may hold: an alarm that comes and goes is one thing to people."""

JOIN_OTHERS = 900.0
"""And where it comes back at another first layer, or of another scope: the first layer may waver while something goes on."""

BLIND = 1800.0
"""Seconds without a break that layers have to be blind for: the alert waits as long, since no request calls what is behind a condition."""


def marks(span: Span, mute: Collection[str]) -> Iterator[tuple[Kind, Alarm]]:
    """Yield what a span is in alarm about, and how gravely; `mute` are the layers that have been blind for long."""
    summary, window = span.summary, span.window
    nonfinite = bool(summary.nonfinite_forwards or summary.first_nonfinite or window.first_nonfinite)
    alarms = {seen.alarm for seen in summary.points.values()} - {""}
    drift = bool(alarms or summary.drifting) and window.forwards > 0  # an alarm stays on while nothing comes to end it
    if nonfinite:
        yield "nonfinite", "page"
    if drift:
        yield "drift", "page" if "page" in alarms else "ticket"
    if mute:
        yield "blind", "ticket"
    other = _unexplained(span, nonfinite or "page" in alarms, nonfinite or bool(alarms or summary.drifting))
    if other and window.forwards > 0:
        yield "other", other


def _unexplained(span: Span, paged: bool, ticketed: bool) -> Alarm:
    """Return the gravest verdict that neither NaN nor drift explains."""
    verdicts = span.summary.verdicts
    if verdicts.get("page") and not paged:
        return "page"
    return "ticket" if verdicts.get("ticket") and not ticketed else ""


@dataclass(slots=True)
class _Open:
    """An episode that may go on."""

    kind: Kind
    alarm: Alarm
    version: str
    started: float
    ended: float
    evidence: float = -1.0
    peak: float = 0.0
    drifting: tuple[str, ...] = ()
    scope: str = ""
    cause: str = ""
    forwards: int = 0
    onsets: dict[str, float] = field(default_factory=dict)
    sources: set[str] = field(default_factory=set)

    def take(self, span: Span, alarm: Alarm, blind: Mapping[str, float]) -> None:
        window, summary = span.window, span.summary
        self.ended = max(self.ended, window.ended)
        self.alarm = "page" if "page" in (alarm, self.alarm) else "ticket"
        self.sources.add(span.source)
        self.forwards += summary.nonfinite_forwards if self.kind == "nonfinite" else 0
        onsets = blind if self.kind == "blind" else dict.fromkeys(_layers(span, self.kind), window.started)
        for layer, began in onsets.items():
            self.onsets.setdefault(layer, began)
        evidence = max((seen.evidence for seen in summary.points.values()), default=0.0)
        if self.kind == "drift" and evidence > self.evidence:
            self.evidence, self.peak = evidence, 0.5 * (window.started + window.ended)
            self.drifting, self.scope, self.cause = summary.drifting, summary.scope, summary.cause

    def patience(self, span: Span) -> float:
        """Return the seconds of calm before a span that leave it in this episode."""
        alike = self.kind != "drift" or (span.summary.scope, span.summary.drifting[:1]) == (self.scope, self.drifting[:1])
        return JOIN if alike else JOIN_OTHERS


def _layers(span: Span, kind: Kind) -> tuple[str, ...]:
    """Return the layers that a span names, the first first."""
    summary, window = span.summary, span.window
    if kind == "nonfinite":
        first = summary.first_nonfinite or window.first_nonfinite
        counted = (layer for layer, seen in window.nonfinite.items() if seen.forwards)
        return tuple(dict.fromkeys([*([first] if first else []), *counted]))
    if kind == "drift":
        return tuple(dict.fromkeys([*summary.drifting, *(layer for (layer, _), seen in summary.points.items() if seen.alarm)]))
    return ()


@dataclass(slots=True)
class _Unseen:
    """Layers of one process that have been blind without a break."""

    started: float
    ended: float
    onsets: dict[str, float] = field(default_factory=dict)


class Episodes:
    """Gathers episodes from spans in the order of their time."""

    def __init__(self) -> None:
        self._open: dict[tuple[Kind, str], _Open] = {}
        self._closed: list[_Open] = []
        self._alive: dict[str, tuple[float, float]] = {}
        self._newest: dict[str, tuple[float, frozenset[tuple[Kind, str]]]] = {}
        self._unseen: dict[tuple[str, str], _Unseen] = {}

    def take(self, span: Span, mute: tuple[str, ...] = ()) -> None:
        """Take one span, with the layers that were blind in it."""
        blind = self._blind(span, mute)
        found = dict(marks(span, blind))
        window, version = span.window, span.model_version
        if window.forwards > 0:
            self._newest[span.source] = window.ended, frozenset((kind, version) for kind in found)
        since, until = self._alive.get(span.source, (window.started, window.ended))
        self._alive[span.source] = min(since, window.started), max(until, window.ended)
        for kind, alarm in found.items():
            began = min(blind.values()) if kind == "blind" else window.started
            have = self._open.get((kind, version))
            if have is None or began - have.ended > have.patience(span):
                self._closed += [have] if have else []
                have = self._open[kind, version] = _Open(kind, alarm, version, began, window.ended)
            have.take(span, alarm, blind)

    def _blind(self, span: Span, mute: tuple[str, ...]) -> Mapping[str, float]:
        """Return since when layers are blind, where some of them have been for long enough, or nothing."""
        key, window = (span.source, span.model_version), span.window
        have = self._unseen.get(key)
        if not mute:
            if window.sampled_forwards:  # else there was nothing to see
                self._unseen.pop(key, None)
            return {}
        if have is None or window.started - have.ended > BLIND:
            have = self._unseen[key] = _Unseen(window.started, window.ended)
        have.ended = max(have.ended, window.ended)
        for layer in mute:
            have.onsets.setdefault(layer, window.started)
        return have.onsets if have.ended - have.started >= BLIND else {}

    def found(self, patience: float) -> tuple[Episode, ...]:
        """Return the episodes by their beginning.

        Args:
            patience: A process counts among the newest if its last window ended at most so many seconds before the last of all.
        """
        last = max((ended for ended, _ in self._newest.values()), default=-math.inf)
        on = {mark for ended, marks in self._newest.values() if ended >= last - patience for mark in marks}
        live = [self._episode(each, (each.kind, each.version) in on) for each in self._open.values()]
        over = [self._episode(each, False) for each in self._closed]
        return tuple(sorted([*live, *over], key=lambda each: (each.started, each.kind)))

    def _episode(self, found: _Open, ongoing: bool) -> Episode:
        told_apart = "" not in found.sources
        alive = sum(since < found.ended and until > found.started for source, (since, until) in self._alive.items() if source)
        layers = tuple(dict.fromkeys([*found.drifting, *sorted(found.onsets, key=found.onsets.__getitem__)]))
        cause = found.cause.removeprefix(f"{layers[0]}: ") if layers else found.cause  # who reads it has read the layer
        return Episode(
            found.kind, found.alarm, found.version, found.started, found.ended, ongoing, layers, found.onsets,
            found.scope, cause, max(found.evidence, 0.0), found.peak, found.forwards,
            len(found.sources) if told_apart else 0, alive if told_apart else 0,
        )  # fmt: skip
