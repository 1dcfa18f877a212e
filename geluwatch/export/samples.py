"""Turns a frozen report into plain samples, the one source that every metrics exporter renders.

Prometheus and OpenTelemetry both read from here, so that they cannot disagree. Every metric of the catalogue has a
reader below, save the two that describe an exposition itself and are added by whoever makes one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from geluwatch import catalog
from geluwatch.catalog import EXPOSITION_METRICS, FAULTS, KINDS, METRICS, PARTS, SIGNS, TIERS, Metric
from geluwatch.export import edges, kernels, probes, traffic
from geluwatch.export.traffic import Reader as _Reader
from geluwatch.export.traffic import Reading as _Reading
from geluwatch.profiles import within
from geluwatch.records import VERDICTS, Certificate, Nonfinite, Panel, PointReport, Report

REPORT_METRICS = tuple(metric for metric in METRICS if metric not in EXPOSITION_METRICS)
"""Metrics that are read from a report, in the catalogue's order."""


class Sample(NamedTuple):
    """One value of one series."""

    metric: Metric
    labels: Mapping[str, str]
    """Every label of the series, the constant ones included; of a histogram's samples, one without `le` is the sum."""
    value: float


def samples(report: Report) -> Iterator[Sample]:
    """Yield every sample of a report, grouped by metric in the catalogue's order.

    Gauges without a value yet (no window closed, no baseline armed) are left out; counters are there from 0.
    """
    for metric in REPORT_METRICS:
        yield from samples_of(report, metric)


def samples_of(report: Report, metric: Metric) -> Iterator[Sample]:
    """Yield the samples of one of `REPORT_METRICS`; those of a histogram go up by `le` within a (layer, point).

    A metric that the report's profile leaves out has none.
    """
    constant = constant_labels(report)
    for labels, value in readings_of(report, metric):
        yield Sample(metric, {**constant, **labels}, value)


def readings_of(report: Report, metric: Metric) -> Iterator[tuple[Mapping[str, str], float]]:
    """Yield the samples of one of `REPORT_METRICS` as (labels without the constant ones, value)."""
    if within(metric.profile, report.profile):
        for labels, value in _READERS[metric](report):
            yield labels, float(value)


def constant_labels(report: Report) -> dict[str, str]:
    """Return the labels that every series of a report carries; ours win over the user's."""
    return {**report.labels, "model": report.model, "model_version": report.model_version}


@cache
def package_version() -> str:
    """Return the installed version of geluwatch, or "unknown" in a source tree that was never installed."""
    try:
        return version("geluwatch")
    except PackageNotFoundError:
        return "unknown"


def layers(report: Report) -> dict[str, list[PointReport]]:
    """Return the reports of each layer's points, pre before post, layers in the model's order."""
    found: dict[str, list[PointReport]] = {}
    for seen in sorted(report.sites.values(), key=lambda seen: (seen.position, seen.layer, seen.point == "post")):
        found.setdefault(seen.layer, []).append(seen)
    return found


def _of_model(value: Callable[[Report], float | None]) -> _Reader:
    def read(report: Report) -> Iterator[_Reading]:
        found = value(report)
        if found is not None:
            yield {}, found

    return read


def _of_layer(value: Callable[[PointReport], float]) -> _Reader:
    def read(report: Report) -> Iterator[_Reading]:
        for layer, (first, *_) in layers(report).items():
            yield {"layer": layer}, value(first)

    return read


def _of_guard(value: Callable[[Nonfinite], float]) -> _Reader:
    def read(report: Report) -> Iterator[_Reading]:
        for layer in layers(report):
            yield {"layer": layer}, value(report.totals.nonfinite.get(layer, Nonfinite()))

    return read


def _of_gradients(value: Callable[[Nonfinite], float]) -> _Reader:
    def read(report: Report) -> Iterator[_Reading]:
        if report.gradients:
            yield from _of_guard(value)(report)

    return read


def _points(report: Report) -> Iterator[tuple[dict[str, str], PointReport]]:
    for of_layer in layers(report).values():
        for seen in of_layer:
            yield {"layer": seen.layer, "point": seen.point}, seen


def _of_point(value: Callable[[PointReport], float]) -> _Reader:
    def read(report: Report) -> Iterator[_Reading]:
        for labels, seen in _points(report):
            found = value(seen)
            if not math.isnan(found):
                yield labels, found

    return read


def _of_panel(value: Callable[[Panel], float]) -> _Reader:
    def finite(seen: PointReport) -> float:
        # The logarithm of a spread of zero is no number to draw or to average; that the layer is dead is told by itself.
        found = math.nan if seen.panel is None else value(seen.panel)
        return found if math.isfinite(found) else math.nan

    return _of_point(finite)


def _before_gelu(value: Callable[[Panel], float]) -> _Reader:
    """Read a statistic that only the values before the GELU have, by layer."""

    def read(report: Report) -> Iterator[_Reading]:
        for labels, found in _of_panel(value)(report):
            if labels["point"] == "pre":
                yield {"layer": labels["layer"]}, found

    return read


def _of_certificate(value: Callable[[Certificate], float]) -> _Reader:
    return _of_model(lambda report: None if report.certificate is None else value(report.certificate))


def _limit(report: Report) -> Iterator[_Reading]:
    if report.certificate is not None:
        limits = (report.certificate.ticket_limit, report.certificate.page_limit)
        for tier, limit in zip(TIERS, limits, strict=True):
            if math.isfinite(limit):
                yield {"tier": tier}, limit


def _alarm(report: Report) -> Iterator[_Reading]:
    for labels, seen in _points(report):
        if not math.isnan(seen.evidence):
            for tier in TIERS:
                yield {**labels, "tier": tier}, seen.alarm == tier


def _first_drift(report: Report) -> Iterator[_Reading]:
    if report.drifting:
        yield {"layer": report.drifting[0], "scope": report.scope}, 1


def _onset(report: Report) -> Iterator[_Reading]:
    for layer, points in layers(report).items():
        began = [seen.onset for seen in points if seen.onset is not None]
        if began and layer in report.drifting:
            yield {"layer": layer}, min(began)


def _gross(report: Report) -> Iterator[_Reading]:
    for layer, points in layers(report).items():
        if points[0].state == "observed":
            for fault in FAULTS:
                yield {"layer": layer, "fault": fault}, any(seen.gross == fault for seen in points)


def _overflow(report: Report) -> Iterator[_Reading]:
    for labels, seen in _points(report):
        if not math.isnan(seen.headroom.bits):
            for tier in TIERS:
                yield {**labels, "tier": tier}, seen.headroom.alarm == tier


def _window_rows(report: Report) -> Iterator[_Reading]:
    if report.window_ended is not None:
        for labels, seen in _points(report):
            yield labels, seen.rows


def _op_seconds(report: Report) -> Iterator[_Reading]:
    for layer in layers(report):
        yield {"layer": layer}, report.totals.op_seconds.get(layer, 0.0)


def _nonfinite_elements(report: Report) -> Iterator[_Reading]:
    for labels, seen in _points(report):
        elements = report.totals.nonfinite.get(seen.layer, Nonfinite()).elements
        for kind in KINDS:
            yield {**labels, "kind": kind}, elements.get((seen.point, kind), 0)


def _values(report: Report) -> Iterator[_Reading]:
    for labels, seen in _points(report):
        for le, count in edges.buckets(seen, report.profile):
            yield {**labels, "le": le}, count


def _abs_sum(report: Report) -> Iterator[_Reading]:
    for labels, seen in _points(report):
        for sign, value in zip(SIGNS, (seen.totals.abs_sum_pos, seen.totals.abs_sum_neg), strict=True):
            yield {**labels, "sign": sign}, value


def _baseline_cdf(report: Report) -> Iterator[_Reading]:
    for labels, seen in _points(report):
        for le, share in edges.shares(seen, report.profile):
            yield {**labels, "le": le}, share


def _verdict(report: Report) -> Iterator[_Reading]:
    for verdict in VERDICTS:
        yield {"verdict": verdict}, verdict == report.verdict


def _baseline_info(report: Report) -> Iterator[_Reading]:
    if report.baseline is not None:
        yield {"baseline": report.baseline}, 1


def _baseline_origin(report: Report) -> Iterator[_Reading]:
    if (origin := report.baseline_origin) is not None:
        told = {
            "weights": origin.weights,
            "dtype": origin.dtype,
            "device_kind": origin.device,
            "torch": origin.torch,
            "signer": origin.signer,
        }
        yield {**told, "promoted": "yes" if origin.promoted else "no"}, 1


def _build_info(report: Report) -> Iterator[_Reading]:
    yield {"version": package_version(), "framework": report.framework}, 1


def _errors(report: Report) -> Iterator[_Reading]:
    for part in dict.fromkeys((*PARTS, *sorted(report.totals.errors))):
        yield {"part": part}, report.totals.errors.get(part, 0)


def _part_disabled(report: Report) -> Iterator[_Reading]:
    for part in dict.fromkeys((*PARTS, *sorted(report.disabled))):
        yield {"part": part}, part in report.disabled


def _profile_info(report: Report) -> Iterator[_Reading]:
    yield {"profile": report.profile}, 1


_READERS: Mapping[Metric, _Reader] = {
    catalog.FORWARDS: _of_model(lambda report: report.totals.forwards),
    catalog.SAMPLED_FORWARDS: _of_model(lambda report: report.totals.sampled_forwards),
    catalog.SAMPLES: _of_model(lambda report: report.totals.samples),
    **traffic.READERS,
    catalog.LAST_FORWARD: _of_model(lambda report: report.last_forward),
    catalog.NONFINITE_FORWARDS: _of_model(lambda report: report.totals.nonfinite_forwards),
    catalog.SITE_NONFINITE: _of_guard(lambda nonfinite: nonfinite.forwards),
    catalog.SITE_FIRST_NONFINITE: _of_guard(lambda nonfinite: nonfinite.first),
    catalog.SITE_PADDING_NONFINITE: _of_guard(lambda nonfinite: nonfinite.padding_forwards),
    catalog.SITE_GRADIENTS: _of_gradients(lambda nonfinite: nonfinite.backwards),
    catalog.SITE_FIRST_GRADIENTS: _of_gradients(lambda nonfinite: nonfinite.first_backward),
    catalog.NONFINITE_ELEMENTS: _nonfinite_elements,
    catalog.VALUES: _values,
    catalog.ELEMENTS: _of_point(lambda seen: seen.totals.elements),
    catalog.ABS_SUM: _abs_sum,
    catalog.SQUARES: _of_point(lambda seen: seen.totals.squares),
    catalog.WINDOW_MEAN: _of_point(lambda seen: seen.mean),
    catalog.WINDOW_STD: _of_point(lambda seen: seen.std),
    catalog.WINDOW_ROWS: _window_rows,
    catalog.WINDOW_END: _of_model(lambda report: report.window_ended),
    catalog.WINDOWS: _of_model(lambda report: report.totals.windows),
    catalog.KS: _of_point(lambda seen: seen.ks),
    catalog.KS_UPPER: _of_point(lambda seen: seen.ks_upper),
    catalog.WASSERSTEIN: _of_panel(lambda panel: panel.wasserstein),
    catalog.MEAN_SHIFT: _of_panel(lambda panel: panel.mean_shift),
    catalog.SPREAD_SHIFT: _of_panel(lambda panel: panel.log_spread),
    catalog.TAIL: _of_panel(lambda panel: panel.tails),
    catalog.GATE_CLOSED: _before_gelu(lambda panel: panel.gate_closed),
    catalog.GATE_OPEN: _before_gelu(lambda panel: panel.gate_open),
    catalog.ZERO: _of_panel(lambda panel: panel.zeros),
    catalog.PSI: _of_panel(lambda panel: panel.psi),
    catalog.SCORE: _of_point(lambda seen: seen.score),
    catalog.SURPRISE: _of_point(lambda seen: seen.surprise),
    catalog.LIMIT: _limit,
    catalog.EVIDENCE: _of_point(lambda seen: seen.evidence),
    catalog.ALARM: _alarm,
    catalog.FIRST_DRIFT: _first_drift,
    catalog.ONSET: _onset,
    catalog.GROSS: _gross,
    catalog.KERNEL_MISMATCH: kernels.mismatch,
    catalog.KERNEL_ERROR: kernels.error,
    catalog.HEADROOM: _of_point(lambda seen: seen.headroom.bits),
    catalog.OVERFLOW_TIME: _of_point(lambda seen: seen.headroom.seconds),
    catalog.OVERFLOW: _overflow,
    catalog.BASELINE_CDF: _baseline_cdf,
    catalog.VERDICT: _verdict,
    catalog.PROBE_MOVED: probes.moved,
    catalog.PROBE_FIRST: probes.first,
    catalog.PROBE_DIFFERENCE: probes.difference,
    catalog.PROBE_TIME: probes.time,
    catalog.LAYER_INDEX: _of_layer(lambda seen: seen.position),
    catalog.SITE_OBSERVED: _of_layer(lambda seen: seen.state == "observed"),
    catalog.BASELINE_ARMED: _of_model(lambda report: report.baseline is not None),
    catalog.BASELINE_TIME: _of_model(lambda report: report.baseline_created),
    catalog.BASELINE_WINDOWS: _of_certificate(lambda given: given.windows),
    catalog.BASELINE_LOOKS: _of_certificate(lambda given: given.looks),
    catalog.BASELINE_INFO: _baseline_info,
    catalog.BASELINE_ORIGIN: _baseline_origin,
    catalog.BUILD_INFO: _build_info,
    catalog.ATTACHED: _of_model(lambda report: report.attached),
    catalog.GELU_SECONDS: _op_seconds,
    catalog.TIMED_SECONDS: _of_model(lambda report: report.totals.timed_seconds),
    catalog.HOOK_SECONDS: _of_model(lambda report: report.totals.hook_seconds),
    catalog.COST_BUDGET: _of_model(lambda report: report.cost_budget),
    catalog.FLUSH_SECONDS: _of_model(lambda report: report.totals.flush_seconds),
    catalog.DROPPED_ROWS: _of_model(lambda report: report.totals.dropped_rows),
    catalog.ERRORS: _errors,
    catalog.PART_DISABLED: _part_disabled,
    catalog.PROFILE_INFO: _profile_info,
}
