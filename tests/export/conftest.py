"""Builds realistic reports, through fixtures that hand out a function, so that hypothesis may use them too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import erf, sqrt

import pytest

from geluwatch.catalog import BATCH_EDGES, FULL_EDGES, LATENCY_EDGES
from geluwatch.profiles import Profile
from geluwatch.records import (
    POINTS,
    Application,
    BaselineOrigin,
    Certificate,
    DeviceUsage,
    FirstPass,
    Headroom,
    Interval,
    LayerDifference,
    Nonfinite,
    Panel,
    Parity,
    Point,
    PointKey,
    PointReport,
    PointTotals,
    ProbeResult,
    Report,
    Totals,
    Traffic,
    Training,
    Usage,
    Verdict,
)

LAYER = "encoder.layer.{}.intermediate.intermediate_act_fn"
NOON = 1_767_268_800.0
ROWS, WIDTH = 2048, 1536

ReportBuilder = Callable[..., Report]

CERTIFICATE = Certificate(
    windows=2880,
    left_out=12,
    seconds=2880 * 60.0,
    horizons=(1, 4, 16),
    looks=141.0,
    strata=24,
    tickets_per_month=2.0,
    pages_per_quarter=1.0,
    ticket_limit=6.0,
    page_limit=7.5,
    replayed=2880,
    requested=10.0,
    observed=9,
    interval=(4.1, 17.1),
    armed=True,
    paging=True,
)


TRAFFIC = Traffic(
    seconds=8_100.0,
    latencies=tuple(10_000 if 4 <= place < 13 else 0 for place in range(len(LATENCY_EDGES) + 1)),
    batches=tuple(90_000 if place == 3 else 0 for place in range(len(BATCH_EDGES) + 1)),
    tokens=46_080_000,
    failed=5,
    out_of_memory=2,
    first=FirstPass(3.5, 1.25),
)

CAUSE = "pre-GELU values moved by +0.40 standard deviations (mean -0.01, was -0.4); their spread is 1.08 times the baseline's."


def probed(layers: int, moved: int | None, time: float) -> ProbeResult:
    """What a probe showed: from the layer of that number on the model has changed."""
    found = [
        LayerDifference(LAYER.format(number), 112, *((2.5e-3, 3e-3, 0.5) if moved is not None and number >= moved else (3e-7,) * 3), "")
        for number in range(layers)
    ]
    first = None if moved is None else found[moved]
    said = "the model gives the same" if first is None else f"the model changed, first at layer {first.layer}"
    return ProbeResult(time, "v1", time - 86_400.0, tuple(found), first, within=False, sentence=said)


def shares(point: Point, shift: float) -> tuple[float, ...]:
    """Cumulative shares of a normal value at the catalogue's full edges, then at +Inf."""
    return (*((1 + erf((edge - shift) / sqrt(2))) / 2 for edge in FULL_EDGES[point]), 1.0)


def point_report(position: int, point: Point, *, judged: bool, drifting: bool, windowed: bool) -> PointReport:
    """One observed (layer, point) whose numbers differ from layer to layer."""
    shift = -0.4 + 0.05 * position + (0.3 if point == "post" else 0.0)
    elements = 40 * ROWS * WIDTH
    evidence = (4.2 if point == "pre" else 1.9) - 0.1 * position if drifting else 0.31 + 0.06 * ((position * 5) % 7)
    buckets = tuple(int(elements * share) for share in shares(point, shift))
    totals = PointTotals(elements, buckets, 0.31 * elements, 0.22 * elements, 0.97 * elements)
    seen = PointReport(LAYER.format(position), point, position, "observed", totals=totals)
    if windowed:
        trend = (400.0, 24_000.0) if drifting else (float("nan"), float("nan"))
        room = Headroom(125.5 - 0.25 * position - (0.5 if point == "post" else 0.0), *trend)
        seen = replace(seen, rows=ROWS, elements=ROWS * WIDTH, mean=shift, std=0.9 - 0.03 * position, headroom=room)
    if windowed and point == "post":
        seen = replace(seen, parity=Parity("erf", "float32", "erf", "float32", 0.125, 1.75, 2.5 + position, 2.5e-7, 3900))
    if judged:
        seen = replace(
            seen,
            ks=0.0062 + 0.001 * position + (0.05 if drifting else 0.0),
            ks_upper=0.0081 + 0.001 * position + (0.05 if drifting else 0.0),
            score=2.2 * evidence,
            surprise=CERTIFICATE.ticket_limit * evidence,
            family="contrast" if drifting else "level",
            horizon=4,
            evidence=evidence,
            alarm="ticket" if drifting else "",
            onset=NOON - 600.0 + 60.0 * position if drifting else None,
            panel=panel(position, point, 0.4 if drifting else 0.01),
            baseline_cdf=shares(point, -0.4),
        )
    return seen


def panel(position: int, point: Point, moved: float) -> Panel:
    """How far a window lies from its baseline."""
    ks = Interval(0.2 * moved, 0.21 * moved)
    gates = (0.04, 0.01) if point == "pre" else (float("nan"), float("nan"))
    return Panel(ks, -0.5, 1, moved, moved - 0.002 * position, 0.2 * moved, 0.002 + 0.01 * moved, *gates, 0.0, 0.1 * moved)


def blind_reports(layer: str, position: int) -> dict[PointKey, PointReport]:
    """Both points of a site that cannot be observed."""
    reason = "compiled before attach"
    return {(layer, point): PointReport(layer, point, position, "blind", reason) for point in POINTS}


def build(
    verdict: Verdict = "ok",
    layers: int = 2,
    *,
    blind: int = 0,
    time: float = NOON,
    labels: dict[str, str] | None = None,
    nonfinite: dict[str, Nonfinite] | None = None,
    model: str = "minilm",
    profile: Profile = "standard",
) -> Report:
    """A report as the core would publish it in the state that the verdict names."""
    judged, windowed = verdict in ("ok", "ticket", "page"), verdict not in ("warming", "blind")
    sites: dict[PointKey, PointReport] = {}
    drifting: list[str] = []
    for position in range(layers):
        layer = LAYER.format(position)
        if verdict == "blind" or position >= layers - blind:
            sites |= blind_reports(layer, position)
            continue
        drifts = verdict == "ticket" and layers // 2 <= position < layers // 2 + 3
        drifting += [layer] if drifts else []
        sites |= {(layer, point): point_report(position, point, judged=judged, drifting=drifts, windowed=windowed) for point in POINTS}
    first = LAYER.format(max(0, min(3, layers - blind - 1)))
    if verdict == "page" and nonfinite is None:
        elements: dict[tuple[Point, str], int] = {("pre", "posinf"): 12, ("post", "nan"): 4608}
        nonfinite = {first: Nonfinite(7, 7, 0, elements)}
        for (layer, point), seen in sites.items():
            if layer == first:
                sites[layer, point] = with_nonfinite(seen, elements)
    return Report(
        model=model,
        model_version="1",
        time=time,
        verdict=verdict,
        sites=sites,
        first_nonfinite=first if verdict == "page" else None,
        drifting=tuple(drifting),
        scope="model" if drifting else "",
        cause=f"{drifting[0]}: {CAUSE}" if drifting else "",
        probe=probed(layers, layers // 2 if drifting else None, time - 300.0) if judged else None,
        origin="model" if drifting else "",
        attribution=f"The probe says: the model changed, first at layer {drifting[0]}." if drifting else "",
        labels={"region": "eu"} if labels is None else labels,
        window_started=time - 82.0 if windowed else None,
        window_ended=time - 22.0 if windowed else None,
        attached=time - 3600.0,
        last_forward=time - 0.4,
        baseline="v1" if judged else None,
        baseline_created=time - 86_400.0 if judged else None,
        certificate=CERTIFICATE if judged else None,
        baseline_origin=BaselineOrigin("3f9a12c07be45d68", "float32", "cpu", "2.13.0", "8c1d5e0f22ab7734") if judged else None,
        totals=Totals(
            forwards=90_000,
            sampled_forwards=1_920,
            nonfinite_forwards=7 if verdict == "page" else 0,
            samples=720_000,
            windows=60 if windowed else 0,
            hook_seconds=11.5,
            timed_seconds=4.0,
            op_seconds={"encoder.layer.0.mlp.act": 0.25},
            flush_seconds=4.25,
            errors={"mask": 1},
            nonfinite=nonfinite or {},
            traffic=TRAFFIC,
            training=Training(1_000, 2, 12, 3, 4096.0),
            application=Application(50_000, 1_500, 0.97, -0.004, 3.75),
        ),
        gradients=True,
        usage=Usage(
            812.5,
            1_400_000_000,
            37,
            (DeviceUsage("cuda:0", 2_000_000_000, 2_500_000_000, 0.81, 80_000_000_000),),
            8_000_000_000,
            1_500_000_000,
        ),
        framework="torch 2.13.0",
        cost_budget=0.01,
        profile=profile,
    )


def with_nonfinite(seen: PointReport, elements: dict[tuple[Point, str], int]) -> PointReport:
    """The same point with the non-finite elements that arose on its side."""
    return replace(seen, nonfinite=sum(count for (point, _), count in elements.items() if point == seen.point))


@pytest.fixture(scope="session")
def make_report() -> ReportBuilder:
    """The builder of reports: `make_report(verdict, layers, ...)`."""
    return build
