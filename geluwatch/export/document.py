"""A report as JSON, for the live page and for programs that want one answer rather than a time series.

Every number is finite or null; times are seconds since the epoch. The keys::

    version, framework, model, model_version, labels
    time, attached, last_forward    when the report was made, the agent attached, the last forward pass ended
    verdict                         "blind", "warming", "ok", "ticket" or "page"
    first_nonfinite                 layer, or null
    drifting                        layers, first in the model's order first
    baseline                        null, or {name, created}
    window                          null, or {started, ended} of the last one closed
    totals                          counters since attach: forwards, sampled_forwards, nonfinite_forwards, samples,
                                    windows, dropped_rows, hook_seconds, flush_seconds, errors {part: count}
    runbook                         address of the runbook that fits the verdict, below the listener's own, or null
    disabled                        parts of the agent that are switched off
    layers                          in the model's order, each: layer, position, state, reason, and since attach
                                    nonfinite_forwards, first_nonfinite_forwards, padding_nonfinite_forwards, and
      points                        {"pre", "post"}, each of the last window: rows, elements, nonfinite, mean, std, ks,
                                    ks_upper, score, threshold, horizon, evidence, drifting
"""

from __future__ import annotations

import math
from typing import Any

from geluwatch.export.samples import layers, package_version
from geluwatch.records import Nonfinite, PointReport, Report

_POINT_KEYS = (
    "rows",
    "elements",
    "nonfinite",
    "mean",
    "std",
    "ks",
    "ks_upper",
    "score",
    "threshold",
    "horizon",
    "evidence",
    "drifting",
)
_TOTAL_KEYS = (
    "forwards",
    "sampled_forwards",
    "nonfinite_forwards",
    "samples",
    "windows",
    "dropped_rows",
    "hook_seconds",
    "flush_seconds",
)


def document(report: Report, runbook: str | None = None) -> dict[str, Any]:
    """Return a report as plain JSON values, with the keys that this module's docstring lists."""
    totals = report.totals
    return {
        "version": package_version(),
        "framework": report.framework,
        "model": report.model,
        "model_version": report.model_version,
        "labels": dict(report.labels),
        "time": report.time,
        "attached": report.attached,
        "last_forward": report.last_forward,
        "verdict": report.verdict,
        "runbook": runbook,
        "first_nonfinite": report.first_nonfinite,
        "drifting": list(report.drifting),
        "baseline": None if report.baseline is None else {"name": report.baseline, "created": report.baseline_created},
        "window": None if report.window_ended is None else {"started": report.window_started, "ended": report.window_ended},
        "totals": {**_plain(totals, _TOTAL_KEYS), "errors": dict(totals.errors)},
        "disabled": list(report.disabled),
        "layers": [_layer(seen, totals.nonfinite.get(layer, Nonfinite())) for layer, seen in layers(report).items()],
    }


def _layer(points: list[PointReport], nonfinite: Nonfinite) -> dict[str, Any]:
    first = points[0]
    return {
        "layer": first.layer,
        "position": first.position,
        "state": first.state,
        "reason": first.reason,
        "nonfinite_forwards": nonfinite.forwards,
        "first_nonfinite_forwards": nonfinite.first,
        "padding_nonfinite_forwards": nonfinite.padding_forwards,
        "points": {seen.point: _plain(seen, _POINT_KEYS) for seen in points},
    }


def _plain(record: object, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: _finite(getattr(record, key)) for key in keys}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
