"""Traffic: what the models are asked, and how much of it is sampled."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import BY_POD, OF_AGENT, OF_MODEL, PODS_FROM_ZERO, Queries, Row, amounts
from geluwatch.mixin.panels import LOWEST_FIRST, TimeSeries, per_second, target
from geluwatch.mixin.queries import GROUP, smallest, total


def row(ask: Queries) -> Row:
    """Return the row of traffic."""
    return Row("Traffic", (_forwards(ask), _share(ask), _rows(ask), ages(ask), _windows(ask)), collapsed=True)


def _forwards(ask: Queries) -> TimeSeries:
    passes, samples = total(ask.rate(catalog.FORWARDS), *GROUP), total(ask.rate(catalog.SAMPLES), *GROUP)
    return amounts(
        "Forward passes and samples",
        "Forward passes of the watched models, and the batch entries in them.",
        target(passes, f"{OF_MODEL} passes"),
        target(samples, f"{OF_MODEL} samples"),
        unit=per_second(""),
    )


def _share(ask: Queries) -> TimeSeries:
    sampled, passes = total(ask.rate(catalog.SAMPLED_FORWARDS), *GROUP), total(ask.rate(catalog.FORWARDS), *GROUP)
    return TimeSeries(
        "Share of sampled passes",
        "Forward passes from which rows were captured. Every pass is checked for NaN and Inf, sampled or not.",
        [target(f"{sampled} / ({passes} > 0)", OF_MODEL)],
        size=(8, 7),
        unit="percentunit",
        field={"min": 0, "max": 1},
        options=LOWEST_FIRST,
    )


def _rows(ask: Queries) -> TimeSeries:
    return amounts(
        "Rows in a window",
        "Rows captured in the last closed window, at the layer with the fewest. Few rows make drift slow to see.",
        target(smallest(ask.gauge(catalog.WINDOW_ROWS), *BY_POD), OF_AGENT),
        unit="short",
    )


def ages(ask: Queries, size: tuple[int, int] = (12, 7)) -> TimeSeries:
    """Return how long ago agents saw a pass and closed a window."""
    forward, window = (f"time() - {ask.gauge(metric)}" for metric in (catalog.LAST_FORWARD, catalog.WINDOW_END))
    return amounts(
        "Time since the last pass and window",
        "Age of the last forward pass and of the last closed window. Windows wait for rows, so they age without traffic.",
        target(forward, f"{OF_AGENT} pass"),
        target(window, f"{OF_AGENT} window"),
        unit="s",
        size=size,
        field=PODS_FROM_ZERO,
        links=ask.runbook("AgentFaulty"),
    )


def _windows(ask: Queries) -> TimeSeries:
    closed = target(f"60 * {total(ask.rate(catalog.WINDOWS), *GROUP)}", OF_MODEL)
    return amounts("Windows closed", "Windows that all pods of a model version close in a minute.", closed, unit="none", size=(12, 7))
