"""Spans of the history: a closed window with what its report said, and several of them merged into one.

Histograms merge exactly, in any order and grouping; so does everything that is counted. Channel moments merge exactly too where
a span has them, and are let go in days. Of what was said, the worst is told (see `geluwatch.records.history`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from geluwatch.core import histogram, moments
from geluwatch.core.window import merge_nonfinite
from geluwatch.records import Alarm, Moments, PointKey, PointSummary, PointWindow, Report, Resolution, Span, Summary, Totals, Window

_ALARMS: tuple[Alarm, ...] = ("", "ticket", "page")
"""From bad to worse."""

_Key = TypeVar("_Key", bound=str)

# Spans folded at a time: their histograms are in memory together.
_TOGETHER = 8

_PROBED = {"data": "traffic", "model": "model"}
"""Where drift comes from, by the origin that a probe has told: it knows what the layers only suggest."""


def observed(window: Window, report: Report, before: Totals, source: str) -> Span:
    """Return a window that was just closed as a span.

    Args:
        window: The window.
        report: The report of that moment.
        before: Totals of the report when the window before it was closed; of another process's, or a restarted one's, none count.
        source: Which process saw it.
    """
    return Span(report.model, report.model_version, "raw", source, 1, window, _summary(window, report, before))


def without_moments(window: Window) -> Window:
    """Return a window whose channel moments have been let go: no rows, no channels."""
    return replace(window, points={key: replace(seen, moments=_no_moments()) for key, seen in window.points.items()})


def merge(spans: Iterable[Span], resolution: Resolution) -> Span:
    """Return spans of one model and version, at least one, as one of a coarser resolution."""
    waiting: list[Span] = []
    for span in spans:
        waiting.append(span)
        if len(waiting) == _TOGETHER:
            waiting = [_together(waiting, resolution)]
    merged = _together(waiting, resolution)
    return replace(merged, window=without_moments(merged.window)) if resolution == "day" else merged


def _summary(window: Window, report: Report, before: Totals) -> Summary:
    totals = report.totals
    if totals.windows < before.windows:  # counters only grow, so these are of another start
        before = Totals()
    errors = {part: count - before.errors.get(part, 0) for part, count in totals.errors.items()}
    # In an idle stretch the report goes on to tell of the last window, and nothing was judged.
    idle = not (window.forwards or window.points or window.nonfinite)
    return Summary(
        verdicts={} if idle else {report.verdict: 1},
        points={} if idle else _points(window, report),
        drifting=() if idle else report.drifting,
        scope="" if idle else _PROBED.get(report.origin, report.scope),
        cause="" if idle else report.cause,
        first_nonfinite=window.first_nonfinite,
        baseline=report.baseline,
        nonfinite_forwards=totals.nonfinite_forwards - before.nonfinite_forwards,
        hook_seconds=totals.hook_seconds - before.hook_seconds,
        flush_seconds=totals.flush_seconds - before.flush_seconds,
        forward_seconds=totals.traffic.seconds - before.traffic.seconds,
        dropped_rows=totals.dropped_rows - before.dropped_rows,
        errors={part: count for part, count in errors.items() if count},
        blind=len({layer for (layer, _), site in report.sites.items() if site.state == "blind"}),
    )


def _points(window: Window, report: Report) -> dict[PointKey, PointSummary]:
    """Return what was said of each observed point; what it saw nothing of in this window was judged in an earlier one."""
    seen_now = {key for key, seen in window.points.items() if seen.histogram.finite or seen.histogram.nonfinite}
    return {
        key: PointSummary(
            _judged(seen.evidence) if key in seen_now else 0.0,
            _judged(seen.ks) if key in seen_now else 0.0,
            seen.alarm,
            _nonfinite(window, key),
        )
        for key, seen in report.sites.items()
        if seen.state == "observed"
    }


def _judged(value: float) -> float:
    return 0.0 if np.isnan(value) else float(value)


def _nonfinite(window: Window, key: PointKey) -> int:
    layer, side = key
    elements = window.nonfinite[layer].elements if layer in window.nonfinite else {}
    return sum(count for (point, _), count in elements.items() if point == side)


def _together(spans: Sequence[Span], resolution: Resolution) -> Span:
    spans = sorted(spans, key=lambda span: (span.window.started, span.window.ended))
    sources = {span.source for span in spans}
    return replace(
        spans[0],
        resolution=resolution,
        source=sources.pop() if len(sources) == 1 else "",
        windows=sum(span.windows for span in spans),
        window=_window([span.window for span in spans]),
        summary=_summaries([span.summary for span in spans]),
    )


def _window(windows: Sequence[Window]) -> Window:
    """Return windows, in the order of their time, as one."""
    nonfinite = windows[0].nonfinite
    for window in windows[1:]:
        nonfinite = merge_nonfinite(nonfinite, window.nonfinite)
    keys = dict.fromkeys(key for window in windows for key in window.points)
    return Window(
        started=windows[0].started,
        ended=max(window.ended for window in windows),
        forwards=sum(window.forwards for window in windows),
        sampled_forwards=sum(window.sampled_forwards for window in windows),
        points={key: _point([window.points[key] for window in windows if key in window.points]) for key in keys},
        nonfinite=nonfinite,
        first_nonfinite=_first(window.first_nonfinite for window in windows),
        blind=tuple(dict.fromkeys(layer for window in windows for layer in window.blind)),
        thinned=any(window.thinned for window in windows),
        samples=sum(window.samples for window in windows),
    )


def _point(parts: Sequence[PointWindow]) -> PointWindow:
    return PointWindow(
        histogram.merge(part.histogram for part in parts),
        _moments([part.moments for part in parts if part.moments.rows]),
        sum(part.abs_sum_pos for part in parts),
        sum(part.abs_sum_neg for part in parts),
        sum(part.squares for part in parts),
    )


def _moments(parts: Sequence[Moments]) -> Moments:
    """Return moments merged; a layer that changed its width has no channels in common with itself, and loses them."""
    widths = {part.mean.size for part in parts}
    return moments.merge(parts) if len(widths) == 1 else _no_moments()


def _no_moments() -> Moments:
    return moments.empty(0)


def _summaries(parts: Sequence[Summary]) -> Summary:
    """Return what was said of windows, in the order of their time, as of one."""
    worst = max(parts, key=_severity)
    points: dict[PointKey, PointSummary] = {}
    for part in parts:
        for key, said in part.points.items():
            points[key] = _worse(points[key], said) if key in points else said
    return Summary(
        verdicts=_sum(part.verdicts for part in parts),
        points=points,
        drifting=worst.drifting,
        scope=worst.scope,
        cause=worst.cause,
        first_nonfinite=_first(part.first_nonfinite for part in parts),
        baseline=_first(part.baseline for part in reversed(parts)),
        nonfinite_forwards=sum(part.nonfinite_forwards for part in parts),
        hook_seconds=sum(part.hook_seconds for part in parts),
        flush_seconds=sum(part.flush_seconds for part in parts),
        forward_seconds=sum(part.forward_seconds for part in parts),
        dropped_rows=sum(part.dropped_rows for part in parts),
        errors=_sum(part.errors for part in parts),
        blind=max(part.blind for part in parts),
    )


def _severity(summary: Summary) -> tuple[bool, float]:
    return bool(summary.drifting), max((said.evidence for said in summary.points.values()), default=0.0)


def _worse(one: PointSummary, other: PointSummary) -> PointSummary:
    return PointSummary(
        max(one.evidence, other.evidence),
        max(one.ks, other.ks),
        max(one.alarm, other.alarm, key=_ALARMS.index),
        one.nonfinite + other.nonfinite,
    )


def _sum(parts: Iterable[Mapping[_Key, int]]) -> dict[_Key, int]:
    total: dict[_Key, int] = {}
    for part in parts:
        for key, count in part.items():
            total[key] = total.get(key, 0) + count
    return total


def _first(values: Iterable[str | None]) -> str | None:
    return next((value for value in values if value is not None), None)
