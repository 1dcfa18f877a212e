"""A report as JSON, for the live page and for programs that want one answer rather than a time series.

Every number is finite or null; times are seconds since the epoch. The keys::

    version, framework, model, model_version, labels
    time, attached, last_forward    when the report was made, the agent attached, the last forward pass ended
    report_seconds                  seconds from one report to the next, or null where whoever writes this does not know
    verdict                         "blind", "warming", "ok", "ticket" or "page"
    first_nonfinite                 layer, or null
    drifting                        layers, the one where drift began first
    scope                           "traffic" when most layers moved alike, "model" when drift enters at the first of them,
                                    "unknown" when the layers do not tell, or ""
    cause                           what changed at the first of them, in one sentence, or ""
    origin                          what changed by the probe: "data", "model", "unknown", or "" without drift
    attribution                     what the probe says, in one sentence, or ""
    probe                           null before a probe was replayed, or {time, recorded, moved, first, within, size, layers}: first is
                                    the first layer that moved, or null, within whether it moved at the GELU itself, size by how much
                                    of its values; each of layers has layer, rows, and the relative differences before and after
    gross                           what is grossly wrong, each: layer, point, fault ("dead" or "impossible")
    kernels                         layers whose kernel is not the declared one, each: layer, fault (a sentence)
    overflow                        where an overflow lies ahead, each: layer, point, bits, windows, seconds, alarm ("ticket" or "page")
    baseline                        null, or {name, created, certificate, origin}; the origin is null or {weights, dtype, device, torch,
                                    signer, promoted}, of what it was recorded and who stands for it; the certificate is null or
                                    {windows, left_out, seconds, looks, tickets_per_month, pages_per_quarter,
                                    ticket_limit, page_limit, paging, paging_reason}; a limit that is not armed is null
    window                          null, or {started, ended} of the last one closed
    totals                          counters since attach: forwards, sampled_forwards, nonfinite_forwards, samples,
                                    windows, dropped_rows, hook_seconds, flush_seconds, errors {part: count}
    runbook                         address of the runbook that fits the verdict, below the listener's own, or null
    disabled                        parts of the agent that are switched off
    layers                          in the model's order, each: layer, position, state, reason, and since attach
                                    nonfinite_forwards, first_nonfinite_forwards, padding_nonfinite_forwards, and
      points                        {"pre", "post"}, each of the last window: rows, elements, nonfinite, mean, std, ks,
                                    ks_upper, score, surprise, family, horizon, evidence, alarm, onset, gross, and
        parity                      null, or which kernel made the values after the GELU: declared, dtype, variant, precision,
                                    typical, most, largest (errors in units of last place), absolute, values, fault
        headroom                    {bits, windows, seconds, alarm}: room below the dtype's limit, and how long it lasts
        panel                       null, or how it differs from the baseline: location, sign, wasserstein, mean_shift,
                                    log_spread, tails, gate_closed, gate_open, zeros, psi
"""

from __future__ import annotations

import math
from typing import Any

from geluwatch.export.samples import layers, package_version
from geluwatch.records import Nonfinite, PointReport, ProbeResult, Report

_POINT_KEYS = (
    "rows",
    "elements",
    "nonfinite",
    "mean",
    "std",
    "ks",
    "ks_upper",
    "score",
    "surprise",
    "family",
    "horizon",
    "evidence",
    "alarm",
    "onset",
    "gross",
)
_PANEL_KEYS = ("location", "sign", "wasserstein", "mean_shift", "log_spread", "tails", "gate_closed", "gate_open", "zeros", "psi")
_PARITY_KEYS = ("declared", "dtype", "variant", "precision", "typical", "most", "largest", "absolute", "values", "fault")
_HEADROOM_KEYS = ("bits", "windows", "seconds", "alarm")
_PROBE_KEYS = ("time", "recorded", "moved", "within", "size")
_DIFFERENCE_KEYS = ("layer", "rows", "before", "after")
_CERTIFICATE_KEYS = (
    "windows",
    "left_out",
    "seconds",
    "looks",
    "tickets_per_month",
    "pages_per_quarter",
    "ticket_limit",
    "page_limit",
    "paging",
    "paging_reason",
)
_ORIGIN_KEYS = ("weights", "dtype", "device", "torch", "signer", "promoted")
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


def document(report: Report, runbook: str | None = None, report_seconds: float | None = None) -> dict[str, Any]:
    """Return a report as plain JSON values, with the keys that this module's docstring lists.

    Args:
        report: The report.
        runbook: Address of the runbook that fits it.
        report_seconds: Seconds from one report to the next.
    """
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
        "report_seconds": _finite(report_seconds),
        "verdict": report.verdict,
        "runbook": runbook,
        "first_nonfinite": report.first_nonfinite,
        "drifting": list(report.drifting),
        "scope": report.scope,
        "cause": report.cause,
        "origin": report.origin,
        "attribution": report.attribution,
        "probe": None if report.probe is None else _probe(report.probe),
        "gross": [{"layer": seen.layer, "point": seen.point, "fault": seen.gross} for seen in _points(report) if seen.gross],
        "kernels": [
            {"layer": seen.layer, "fault": seen.parity.fault} for seen in _points(report) if seen.parity is not None and seen.parity.fault
        ],
        "overflow": [
            {"layer": seen.layer, "point": seen.point, **_plain(seen.headroom, _HEADROOM_KEYS)}
            for seen in _points(report)
            if seen.headroom.alarm
        ],
        "baseline": _baseline(report),
        "window": None if report.window_ended is None else {"started": report.window_started, "ended": report.window_ended},
        "totals": {**_plain(totals, _TOTAL_KEYS), "errors": dict(totals.errors)},
        "disabled": list(report.disabled),
        "layers": [_layer(seen, totals.nonfinite.get(layer, Nonfinite())) for layer, seen in layers(report).items()],
    }


def _points(report: Report) -> list[PointReport]:
    """Return all points in the model's order."""
    return [seen for of_layer in layers(report).values() for seen in of_layer]


def _baseline(report: Report) -> dict[str, Any] | None:
    if report.baseline is None:
        return None
    given = report.certificate
    certificate = None if given is None else _plain(given, _CERTIFICATE_KEYS)
    origin = None if report.baseline_origin is None else _plain(report.baseline_origin, _ORIGIN_KEYS)
    return {"name": report.baseline, "created": report.baseline_created, "certificate": certificate, "origin": origin}


def _probe(result: ProbeResult) -> dict[str, Any]:
    return {
        **_plain(result, _PROBE_KEYS),
        "first": None if result.first is None else result.first.layer,
        "layers": [_plain(layer, _DIFFERENCE_KEYS) for layer in result.layers],
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
        "points": {seen.point: _point(seen) for seen in points},
    }


def _point(seen: PointReport) -> dict[str, Any]:
    return {
        **_plain(seen, _POINT_KEYS),
        "parity": None if seen.parity is None else _plain(seen.parity, _PARITY_KEYS),
        "headroom": _plain(seen.headroom, _HEADROOM_KEYS),
        "panel": None if seen.panel is None else _plain(seen.panel, _PANEL_KEYS),
    }


def _plain(record: object, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: _finite(getattr(record, key)) for key in keys}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
