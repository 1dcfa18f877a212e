"""What the fleet is made of: versions, baselines, regions, and the load of each pod."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import BY_POD, OF_AGENT, PODS_FROM_ZERO, VERDICT_WORDS, Queries, Row, amounts, firing, worst_verdict
from geluwatch.mixin.dashboards.rows.cost import by_pod
from geluwatch.mixin.dashboards.rows.rollout import timeline
from geluwatch.mixin.panels import (
    BLUE,
    EMPTY_CELLS,
    LINE_AT_THRESHOLD,
    NEUTRAL,
    ORANGE,
    Json,
    StateTimeline,
    Table,
    TimeSeries,
    cells,
    columns,
    override,
    per_second,
    steps,
    target,
)
from geluwatch.mixin.queries import largest, number, quantile, smallest, total
from geluwatch.mixin.settings import seconds

_REGION = ("model", "region")
_REGION_COLUMNS = ("Pods", "Verdict", "Samples a second", "Latency p95", "Failed passes", "Drift evidence", "Alerts")
_DAY = 86400
_MERGED: Json = {"id": "merge", "options": {}}


def regions(ask: Queries) -> Table:
    """Return the table of each model in each region."""
    renamed = {f"Value #{letter}": name for letter, name in zip("ABCDEFG", _REGION_COLUMNS, strict=True)}
    return Table(
        "Regions",
        "Each model in each region: how many pods, how they are, what they carry. A trouble in one region alone is that region's.",
        [cells(expr) for expr in _measures(ask)],
        size=(24, 6),
        unit="none",
        field={"noValue": "No agent"},
        overrides=[
            EMPTY_CELLS,
            override("byName", "Verdict", mappings=VERDICT_WORDS, custom__cellOptions={"type": "color-background"}),
            override("byName", "Samples a second", decimals=0),
            override("byName", "Latency p95", unit="s"),
            override("byName", "Failed passes", unit="percentunit", decimals=2),
            override("byName", "Drift evidence", decimals=2),
        ],
        options={"sortBy": [{"displayName": "model", "desc": False}]},
        transformations=[_MERGED, columns(hide=("Time",), rename=renamed, order=_REGION)],
    )


def _measures(ask: Queries) -> tuple[str, ...]:
    failed, passes = (total(ask.rate(metric), *_REGION) for metric in (catalog.FAILED_FORWARDS, catalog.FORWARDS))
    pods = number(ask.gauge(catalog.BUILD_INFO), *_REGION)
    return (
        pods,
        worst_verdict(ask.gauge, *_REGION),
        total(ask.rule(ask.recorded.samples), *_REGION),
        quantile(0.95, total(ask.rate(catalog.FORWARD_SECONDS), "le", *_REGION)),
        f"{failed} / ({passes} > 0)",
        largest(ask.known(catalog.EVIDENCE), *_REGION),
        f"{number(firing(ask.settings), *_REGION)} or 0 * {pods}",
    )


def versions_row(ask: Queries) -> Row:
    """Return the row of versions and baselines."""
    return Row("Versions and baselines", (timeline(ask, size=(10, 8)), baselines(ask), ages(ask), _mixture(ask)))


def baselines(ask: Queries, size: tuple[int, int] = (7, 8)) -> StateTimeline:
    """Return the pods of each baseline over time."""
    armed = number(ask.gauge(catalog.BASELINE_INFO), "model", "model_version", "baseline")
    return StateTimeline(
        "Pods by baseline",
        "How many pods have each baseline armed, over time. Two baselines of one version for longer than a rollout takes is a mixture, and "
        "nothing can be said of the fleet.",
        [target(armed, "{{baseline}} of {{model}} {{model_version}}")],
        size=size,
        unit="none",
        field={"decimals": 0, "noValue": "No baseline", "thresholds": steps(BLUE)},
        links=ask.runbook("BaselineMixed"),
    )


def ages(ask: Queries, size: tuple[int, int] = (7, 8)) -> TimeSeries:
    """Return how old baselines are."""
    recorded, limit = smallest(ask.gauge(catalog.BASELINE_TIME), "model", "model_version"), ask.settings.baseline_age
    return TimeSeries(
        "Age of baselines",
        f"Age of the oldest armed baseline of each model version. From the line at {limit} on it is stale: traffic has moved on since.",
        [target(f"(time() - {recorded}) / {_DAY}", "{{model}} {{model_version}}")],
        size=size,
        unit="count:days",
        field={"min": 0, "noValue": "No baseline", "thresholds": steps(NEUTRAL, (seconds(limit) / _DAY, ORANGE))},
        custom=LINE_AT_THRESHOLD,
        links=ask.runbook("BaselineStale"),
    )


def _mixture(ask: Queries) -> Table:
    labels = ("model", "model_version", "region", "baseline")
    return Table(
        "Mixture",
        "Pods by version, baseline and framework: what runs where, and against what it is measured.",
        [
            cells(number(ask.gauge(catalog.BASELINE_INFO), *labels)),
            cells(number(ask.gauge(catalog.BUILD_INFO), *labels[:3], "version", "framework")),
        ],
        size=(24, 6),
        unit="none",
        field={"noValue": "none"},
        transformations=[
            _MERGED,
            columns(hide=("Time",), rename={"Value #A": "Pods with the baseline", "Value #B": "Pods", "version": "geluwatch"}),
        ],
        links=ask.runbook("BaselineMixed"),
    )


def load_row(ask: Queries) -> Row:
    """Return the row of what each pod carries."""
    return Row("Load by pod", (_samples(ask), _latency(ask), _tokens(ask), by_pod(ask)), collapsed=True)


def _samples(ask: Queries) -> TimeSeries:
    samples = target(total(ask.rate(catalog.SAMPLES), *BY_POD), OF_AGENT)
    return amounts(
        "Throughput by pod",
        "Samples a second of each pod; uneven lines are an uneven balance.",
        samples,
        unit=per_second("samples"),
        size=(12, 7),
        field=PODS_FROM_ZERO,
    )


def _latency(ask: Queries) -> TimeSeries:
    p95 = target(quantile(0.95, total(ask.rate(catalog.FORWARD_SECONDS), "le", *BY_POD)), OF_AGENT)
    text = "The 95 % quantile of each pod: one slow pod is a slow node."
    return amounts("Latency p95 by pod", text, p95, unit="s", size=(12, 7), field=PODS_FROM_ZERO, links=ask.runbook("LatencySpike"))


def _tokens(ask: Queries) -> TimeSeries:
    tokens = target(total(ask.rate(catalog.TOKENS), *BY_POD), OF_AGENT)
    return amounts(
        "Tokens by pod", "Valid tokens a second of each pod.", tokens, unit=per_second("tokens"), size=(12, 7), field=PODS_FROM_ZERO
    )
