"""Reads a model's history once, a span at a time, and says what was found in it.

Memory does not grow with the length of the period: of each layer a few numbers a bin are kept, and the distributions of two
spans, that with most evidence and the last one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from geluwatch.analysis.report.coverage import Coverage
from geluwatch.analysis.report.episodes import Episodes
from geluwatch.analysis.report.findings import AgentFinding, BaselineFinding, Episode, Findings, LayerFinding, Portrait, Status
from geluwatch.analysis.report.grid import Grid, grid
from geluwatch.analysis.report.signals import signals
from geluwatch.analysis.report.tracks import Track
from geluwatch.core import lattice, panel
from geluwatch.errors import DamagedError, ReportError, SignatureError, StoreError, UnknownBaselineError
from geluwatch.ports import BaselineStore, History
from geluwatch.records import POINTS, Baseline, Histogram, Moments, PointWindow, Span

PORTRAITS = 4
"""Most layers that get a large picture."""

_IN_CALM = 2
"""And most where nothing was in alarm."""


class Subject(NamedTuple):
    """What a report is about; times are seconds since the epoch."""

    model: str
    version: str | None
    """None for all of them."""
    since: float
    until: float


def gather(history: History, baselines: BaselineStore, subject: Subject) -> Findings:
    """Return what a model's history says of a period.

    Raises:
        ReportError: No window of the model is kept in that period.
        DamagedError: Windows are kept, and none of them can be read.
        StoreError: The history cannot be used.
    """
    asked, subject = subject, _whole(history, subject)
    armed = _Armed(baselines, subject.model)
    reading = _Reading(grid(subject.since, subject.until), armed)
    try:
        for span in history.spans(subject.model, subject.version, subject.since, subject.until):
            reading.take(_from(subject.since, span))
    except DamagedError as damage:
        if not reading.windows:
            raise
        reading.damage = str(damage)
    if not reading.windows:
        version = "" if subject.version is None else f" version {subject.version!r}"
        raise ReportError(
            f"No window of model {subject.model!r}{version} is kept in this store for that period; look at the names, go further back "
            "with --since, or see that the watch was attached with a history."
        )
    found = _findings(reading, armed.find(*reading.armed) if reading.armed else None, subject)
    return replace(found, widened=max(asked.since - subject.since, subject.until - asked.until) > found.grid.width)


def _whole(history: History, subject: Subject) -> Subject:
    """Return what a report is about, with the period widened to the merged hours and days that it touches."""
    since, until = history.widened(subject.model, subject.version, subject.since, subject.until)
    return subject._replace(since=since, until=until)


def _from(since: float, span: Span) -> Span:
    """Return a span that begins no earlier than the period: a process that has yet to be told the time begins its window in 1970."""
    window = span.window
    return span if window.started >= since else replace(span, window=replace(window, started=since))


class _Armed:
    """The baselines that were armed, as far as the store holds them; of all but the last, only their layers are remembered."""

    def __init__(self, baselines: BaselineStore, model: str) -> None:
        self._baselines, self._model = baselines, model
        self._last: BaselineFinding | None = None
        self._layers: dict[tuple[str, str], Collection[str] | None] = {}

    def find(self, version: str, name: str) -> BaselineFinding:
        """Return one of them."""
        if self._last is None or (self._last.version, self._last.name) != (version, name):
            self._last = self._load(version, name)
        return self._last

    def layers(self, version: str, name: str) -> Collection[str] | None:
        """Return the layers that one holds, in its order; None where that is not known."""
        key = version, name
        if key not in self._layers:
            stored = self.find(*key).stored
            self._layers[key] = dict.fromkeys(layer for layer, _ in stored.histograms) if stored else None
        return self._layers[key]

    def _load(self, version: str, name: str) -> BaselineFinding:
        try:
            return BaselineFinding(name, version, self._baselines.load(self._model, version, name))
        except (UnknownBaselineError, SignatureError):  # the keys may have changed since it was armed
            return BaselineFinding(name, version, None)
        except StoreError as failure:
            return BaselineFinding(name, version, None, str(failure))


@dataclass(slots=True)
class _Reading:
    """What is remembered of the spans read so far."""

    grid: Grid
    baselines: _Armed
    damage: str = ""
    windows: int = 0
    forwards: int = 0
    nonfinite_forwards: int = 0
    armed: tuple[str, str] | None = None
    """Version and name of the baseline that was armed last."""
    judged: set[tuple[str, str | None]] = field(default_factory=set)
    """Version and name of the baselines by which a window was judged."""
    judged_layers: dict[tuple[str, str], dict[str, None]] = field(default_factory=dict)
    """Layers that were judged, by version and name of the baseline."""
    newest: Span | None = None
    tracks: dict[str, Track] = field(default_factory=dict)
    versions: dict[str, dict[str, None]] = field(default_factory=dict)
    """Layers met so far, by version."""
    sources: set[str] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)
    agent: AgentFinding = field(default_factory=AgentFinding)
    episodes: Episodes = field(default_factory=Episodes)
    coverage: Coverage = field(init=False)

    def __post_init__(self) -> None:
        self.coverage = Coverage(self.grid)

    def take(self, span: Span) -> None:
        """Take one span."""
        window, summary = span.window, span.summary
        self.windows += span.windows
        self.forwards += window.forwards
        self.nonfinite_forwards += summary.nonfinite_forwards
        self.versions.setdefault(span.model_version, {})
        self.sources |= {span.source} - {""}
        if summary.baseline is not None:
            self.armed = span.model_version, summary.baseline
            if _is_judged(span):
                self.judged.add(self.armed)
        if self.newest is None or window.ended >= self.newest.window.ended:
            self.newest = span
        self._take_health(span)
        self.coverage.take(span)
        shown = dict.fromkeys(layer for layer, _ in window.points)
        mute = self._mute(span, shown)
        self.episodes.take(span, mute)
        for layer in dict.fromkeys([*shown, *mute]):
            track = self.tracks.setdefault(layer, Track(layer, self.grid))
            track.take(span)
            if layer not in shown:
                track.mute(span)

    def _mute(self, span: Span, shown: Collection[str]) -> tuple[str, ...]:
        """Return the layers that are blind in a span, as the alert on them counts: not seen, or without rows while others have some.

        Of these, those that the armed baseline holds: a layer that it lacks was accepted as it is. Without a baseline every layer
        counts that was seen before and has left the census; one that is there and was merely not called does not, nor does one
        that the guard saw faults in, for rows with a NaN are left out.
        """
        window, summary = span.window, span.summary
        known = self.versions[span.model_version]
        known.update(dict.fromkeys([*shown, *window.blind]))
        if not window.sampled_forwards:
            return ()
        held = None if summary.baseline is None else self._held(span, summary.baseline)
        missing = [layer for layer in (known if held is None else held) if layer not in shown]
        observed = {layer for layer, _ in summary.points}
        excused = observed if held is None or not shown else {layer for layer, seen in window.nonfinite.items() if seen.forwards}
        return tuple(layer for layer in missing if layer not in observed or layer not in excused)

    def _held(self, span: Span, name: str) -> Collection[str]:
        """Return the layers that a span's baseline holds; where that is not known, those that it has judged."""
        judged = self.judged_layers.setdefault((span.model_version, name), {})
        judged.update(dict.fromkeys(layer for (layer, _), said in span.summary.points.items() if said.evidence > 0.0 or said.ks > 0.0))
        layers = self.baselines.layers(span.model_version, name)
        return judged if layers is None else layers

    def _take_health(self, span: Span) -> None:
        summary, have = span.summary, self.agent
        self.errors.update(summary.errors)
        self.agent = AgentFinding(
            have.hook_seconds + summary.hook_seconds,
            have.flush_seconds + summary.flush_seconds,
            have.forward_seconds + summary.forward_seconds,
            have.dropped_rows + summary.dropped_rows,
            self.errors,
            max(have.blind, summary.blind),
            have.warming + summary.verdicts.get("warming", 0),
        )


def _findings(reading: _Reading, baseline: BaselineFinding | None, subject: Subject) -> Findings:
    stored = baseline.stored if baseline else None
    coverage, episodes = reading.coverage, reading.episodes.found(reading.coverage.patience)
    gaps = coverage.gaps(subject.until)
    layers = _layers(reading.tracks, stored, reading.grid)
    silent = bool(gaps) and gaps[-1].kind == "silent" and gaps[-1].ended >= subject.until
    found = Findings(
        model=subject.model,
        versions=tuple(reading.versions),
        since=subject.since,
        until=subject.until,
        grid=reading.grid,
        first=coverage.first,
        last=coverage.last,
        windows=reading.windows,
        kept=coverage.kept,
        sources=len(reading.sources),
        forwards=reading.forwards,
        nonfinite_forwards=reading.nonfinite_forwards,
        traffic=coverage.traffic,
        gaps=gaps,
        baseline=baseline,
        armed=reading.newest is not None and reading.newest.summary.baseline is not None,
        layers=layers,
        portraits=tuple(_portraits(reading.tracks, worst_first(layers, episodes), stored)),
        episodes=episodes,
        agent=replace(reading.agent, errors=dict(reading.errors)),
        status=_status(reading, episodes, silent),
        damage=reading.damage,
    )
    return replace(found, signals=tuple(signals(found)))


def _status(reading: _Reading, episodes: tuple[Episode, ...], silent: bool) -> Status:
    """Return how the model is at the end of the period."""
    newest = reading.newest
    if silent or newest is None:
        return "silent"
    alarms = {each.alarm for each in episodes if each.ongoing}
    if alarms:
        return "page" if "page" in alarms else "ticket"
    if newest.summary.verdicts.get("blind") == newest.windows:
        return "blind"
    if (newest.model_version, newest.summary.baseline) not in reading.judged:
        return "unjudged"
    return "again" if episodes else "well"


def _is_judged(span: Span) -> bool:
    """Return whether any of a span's windows was judged; a ticket or a page may stand for something else than drift."""
    return "ok" in span.summary.verdicts or any(each.evidence > 0.0 for each in span.summary.points.values())


def _layers(tracks: dict[str, Track], stored: Baseline | None, over: Grid) -> tuple[LayerFinding, ...]:
    """Return all layers in the model's order: the baseline's, then those it does not have, as they were met."""
    sites = {site.layer: site for site in sorted(stored.sites, key=lambda site: site.position)} if stored else {}
    known = dict.fromkeys([*sites, *tracks])
    return tuple(
        tracks.get(layer, Track(layer, over)).finding(sites[layer].position if layer in sites else place, sites.get(layer))
        for place, layer in enumerate(known)
    )


def worst_first(layers: tuple[LayerFinding, ...], episodes: Iterable[Episode]) -> list[str]:
    """Return the layers worth a large picture: where the episodes began, then those with most evidence."""
    named = [
        each.layers[0] for each in sorted(episodes, key=lambda each: -each.evidence) if each.layers and each.kind in {"nonfinite", "drift"}
    ]
    judged = sorted((each for each in layers if each.most > 0.0), key=lambda each: (each.alarm == "", -each.most))
    alarmed = sum(each.alarm != "" for each in judged)
    most = PORTRAITS if alarmed or named else _IN_CALM
    order = dict.fromkeys([*named, *(each.layer for each in judged)])
    return list(order)[: min(most, max(alarmed, len(dict.fromkeys(named)), _IN_CALM))]


def _portraits(tracks: dict[str, Track], layers: list[str], stored: Baseline | None) -> Iterable[Portrait]:
    for layer in layers:
        track = tracks.get(layer)
        for point in POINTS:
            if track is None or point not in track.worst or point not in track.last:
                continue
            worst, last = track.worst[point], track.last[point]
            calm = stored.histograms.get((layer, point)) if stored else None
            told = None if calm is None else panel.measure(panel.prepare(_pooled(calm), point), _pooled(worst.histogram))
            yield Portrait(layer, point, calm, worst, last, told)


def _pooled(histogram: Histogram) -> PointWindow:
    """Return a histogram with its moments over all channels together, as one: what is merged has let go of the channels'."""
    middles = lattice.midpoints(histogram.cells, histogram.bits)
    count = max(histogram.finite, 1)
    mean = float(middles @ histogram.counts) / count
    m2 = float(np.square(middles - mean) @ histogram.counts)
    return PointWindow(histogram, Moments(histogram.finite, np.array([mean]), np.array([m2])))
