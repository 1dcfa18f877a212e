"""Service: how long passes take, where, how much they carry, how they fail."""

from __future__ import annotations

from collections.abc import Sequence

from grafanalib import core

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import BY_POD, OF_AGENT, OF_MODEL, ONLY_THIS_MODEL, PODS_FROM_ZERO, RATE, Queries, Row, amounts
from geluwatch.mixin.panels import (
    DASHES,
    GREEN,
    LINE_AT_THRESHOLD,
    NEUTRAL,
    ORANGE,
    RED,
    YELLOW,
    Heatmap,
    Json,
    StatusHistory,
    TimeSeries,
    dashed,
    painted,
    per_second,
    steps,
    target,
)
from geluwatch.mixin.queries import GROUP, largest, quantile, total

_COLOURS = {0.5: GREEN, 0.95: ORANGE, 0.99: RED}
_PLACE = (*GROUP, "shard")
_OF_PLACE = f"{OF_MODEL} {{{{shard}}}}"


def forward(ask: Queries) -> TimeSeries:
    """Return the 95 % quantile of each model version, between the median and the 99 % quantile of the slowest."""
    median, tail, far = (ask.rule(ask.recorded.latency(share)) for share in _COLOURS)
    return _quantiles(
        ask,
        "Forward latency",
        "The time that 95 % of the forward passes of each model version take at most. Dashed: the median and the 99 % quantile of the "
        "slowest model version.",
        [target(tail, f"{OF_MODEL} p95"), target(largest(median), "slowest p50"), target(largest(far), "slowest p99")],
        [painted(f"^slowest p{share * 100:g}$", _COLOURS[share], custom__lineStyle=DASHES) for share in (0.5, 0.99)],
    )


def _each(ask: Queries) -> TimeSeries:
    return _quantiles(
        ask,
        "Latency quantiles",
        "Median, 95 % and 99 % quantile of the time a forward pass takes, by model version.",
        [target(ask.rule(ask.recorded.latency(share)), f"{OF_MODEL} p{share * 100:g}") for share in _COLOURS],
        [painted(f".* p{share * 100:g}$", colour) for share, colour in _COLOURS.items()],
    )


def _quantiles(ask: Queries, title: str, description: str, asked: Sequence[core.Target], overrides: Sequence[Json]) -> TimeSeries:
    limit = ask.settings.thresholds.latency_seconds
    return TimeSeries(
        title,
        f"{description} Over all pods, exact to a bucket. Users are content up to {limit:g} s, the line. On an accelerator it is the time "
        "until the call returned.",
        asked,
        size=(12, 8),
        unit="s",
        field={**ONLY_THIS_MODEL, "min": 0, "thresholds": steps(NEUTRAL, (limit, RED))},
        custom=LINE_AT_THRESHOLD,
        overrides=overrides,
        links=ask.runbook("LatencySpike", "ErrorBudgetBurn"),
    )


def spike(ask: Queries) -> TimeSeries:
    """Return the 95 % quantile against what it usually is."""
    now, usual = ask.rule(ask.recorded.latency(0.95)), ask.rule(ask.recorded.usual_latency)
    factor = ask.settings.thresholds.latency_factor
    return TimeSeries(
        "Latency against its usual",
        f"The 95 % quantile of each model version. Dashed: {factor:g} times what it has usually been in the last "
        f"{ask.settings.usual_range}, from where it is a spike.",
        [target(now, f"{OF_MODEL} p95"), target(f"{factor:g} * {usual}", f"{OF_MODEL} limit")],
        size=(8, 8),
        unit="s",
        field={**ONLY_THIS_MODEL, "min": 0},
        overrides=[dashed(".* limit$")],
        links=ask.runbook("LatencySpike"),
    )


def heatmap(ask: Queries) -> Heatmap:
    """Return the latency of all passes by bucket."""
    grown = total(ask.increase(catalog.FORWARD_SECONDS, RATE), "le")
    return Heatmap(
        "Latency of all passes",
        "Forward passes by how long they took; a row is named by its upper edge. Choose a region or a shard above to see theirs. A "
        "second band is a second kind of pod or of request.",
        [target(grown, "{{le}}", form="heatmap")],
        size=(10, 9),
        options={"yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"}},
        links=ask.runbook("LatencySpike"),
    )


def places(ask: Queries) -> StatusHistory:
    """Return the 95 % quantile of latency by region and shard, as colours."""
    limit = ask.settings.thresholds.latency_seconds
    colours = steps(GREEN, (limit / 2, YELLOW), (limit, ORANGE), (2 * limit, RED))
    return StatusHistory(
        "Latency p95 by region and shard",
        f"The 95 % quantile in each region and shard. Orange from {limit:g} s on, which is what users are promised; red from twice that.",
        [target(quantile(0.95, total(ask.rate(catalog.FORWARD_SECONDS), "le", *_PLACE)), _OF_PLACE)],
        size=(14, 9),
        unit="s",
        field={"thresholds": colours, "noValue": "No traffic"},
        links=ask.runbook("LatencySpike", "ErrorBudgetBurn"),
    )


def load_row(ask: Queries) -> Row:
    """Return the row of what passes carry and how pods start."""
    return Row("Latency and load", (_each(ask), _tokens(ask), _batches(ask), _pods(ask), first(ask)), collapsed=True)


def _tokens(ask: Queries) -> TimeSeries:
    tokens = target(total(ask.rate(catalog.TOKENS), *GROUP), OF_MODEL)
    return amounts(
        "Tokens", "Valid tokens a second, padding left out where the mask can be read.", tokens, unit=per_second("tokens"), size=(12, 8)
    )


def _batches(ask: Queries) -> TimeSeries:
    buckets = total(ask.rate(catalog.BATCH_SIZE), "le", *GROUP)
    return amounts(
        "Batch size",
        "Median and largest batch, as bounds that are powers of two.",
        *(target(quantile(share, buckets), f"{OF_MODEL} p{share * 100:g}") for share in (0.5, 1.0)),
        unit="short",
    )


def _pods(ask: Queries) -> TimeSeries:
    buckets = total(ask.rate(catalog.FORWARD_SECONDS), "le", *BY_POD)
    p95 = target(quantile(0.95, buckets), OF_AGENT)
    return amounts("Latency p95 by pod", "The 95 % quantile of each pod: one slow pod is a slow node.", p95, unit="s", field=PODS_FROM_ZERO)


def failures(ask: Queries) -> TimeSeries:
    """Return the passes that raised."""
    failed, memory = (total(ask.rate(metric), *GROUP) for metric in (catalog.FAILED_FORWARDS, catalog.OUT_OF_MEMORY))
    return TimeSeries(
        "Failed passes",
        "Forward passes that raised, and those of them that ran out of memory, which page.",
        [target(failed, f"{OF_MODEL} failed"), target(memory, f"{OF_MODEL} out of memory")],
        size=(12, 8),
        unit=per_second("passes"),
        field={**ONLY_THIS_MODEL, "min": 0},
        overrides=[painted(".* failed$", ORANGE), painted(".* out of memory$", RED)],
        links=ask.runbook("OutOfMemory", "ErrorBudgetBurn"),
    )


def failure_share(ask: Queries) -> str:
    """Return the share of forward passes that raised, by model version."""
    return f"{total(ask.rate(catalog.FAILED_FORWARDS), *GROUP)} / ({total(ask.rate(catalog.FORWARDS), *GROUP)} > 0)"


def first(ask: Queries) -> TimeSeries:
    """Return how long pods take until they have answered once."""
    return amounts(
        "Cold start",
        "From attaching to the end of the first pass, and what that pass took.",
        target(largest(ask.gauge(catalog.COLD_START), *BY_POD), f"{OF_AGENT} ready after"),
        target(largest(ask.gauge(catalog.FIRST_FORWARD), *BY_POD), f"{OF_AGENT} first pass"),
        unit="s",
    )
