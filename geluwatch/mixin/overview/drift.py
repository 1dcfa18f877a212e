"""The row of drift: which layers, which of them first, how surprising, against which limits, on which pods."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.overview.parts import (
    BY_LAYER,
    BY_POINT,
    DASHES,
    LAYERS,
    LAYERS_FROM_ZERO,
    OF_AGENT,
    OF_LAYER,
    OF_MODEL,
    OF_POINT,
    POINT,
    Queries,
    Row,
)
from geluwatch.mixin.panels import GREEN, ORANGE, RED, Stat, TimeSeries, override, steps, target
from geluwatch.mixin.queries import GROUP, largest, number, smallest, total

_DASHED = override("byRegexp", ".* limit$", custom__lineStyle=DASHES, custom__lineWidth=2)


def row(ask: Queries) -> Row:
    """Return the row of drift."""
    return Row("Drift", (_first(ask), _since(ask), _evidence(ask), _surprise(ask), _alarms(ask), _pods_apart(ask)))


def _first(ask: Queries) -> Stat:
    return Stat(
        "Where drift began",
        "The layer where the present drift began, by number of pods. Scope traffic: most layers moved alike, look at the input. "
        "Scope model: this layer moved and the others did not, look at the model there.",
        [target(number(f"{ask.gauge(catalog.FIRST_DRIFT)} == 1", *BY_LAYER, "scope"), f"{OF_LAYER}: {{{{scope}}}}", instant=True)],
        size=(12, 5),
        unit="none",
        field={"noValue": "No drift", "thresholds": steps(ORANGE)},
        options={"textMode": "value_and_name", "orientation": "horizontal"},
        links=ask.runbook("GeluwatchActivationDrift"),
    )


def _since(ask: Queries) -> Stat:
    return Stat(
        "Drifting for",
        "How long each layer has been drifting, as far as the windows tell; the pod that drifts longest.",
        [target(largest(f"time() - {ask.gauge(catalog.ONSET, LAYERS)}", *BY_LAYER), OF_LAYER, instant=True)],
        size=(12, 5),
        unit="s",
        field={"noValue": "No drift", "thresholds": steps(ORANGE)},
        options={"textMode": "value_and_name", "orientation": "horizontal"},
    )


def _evidence(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Drift evidence by layer",
        "Surprise over the ticket's limit, averaged over pods: drift from the line at 1 on. Look at the earliest layer first.",
        [target(ask.of_pods(catalog.EVIDENCE), OF_POINT)],
        size=(12, 9),
        unit="none",
        field={**LAYERS_FROM_ZERO, "thresholds": steps(GREEN, (1, RED))},
        custom={"thresholdsStyle": {"mode": "line"}},
        links=ask.runbook("GeluwatchActivationDrift"),
    )


def _surprise(ask: Queries) -> TimeSeries:
    limit = smallest(ask.gauge(catalog.LIMIT), *GROUP, "tier")
    return TimeSeries(
        "Surprise and limits",
        "Negative decimal logarithm of the probability in calm traffic, averaged over pods: 3 is once in a thousand looks. "
        "Dashed: from where it is a ticket, and a page; a baseline too short to page has no limit for it.",
        [target(ask.of_pods(catalog.SURPRISE), OF_POINT), target(limit, f"{OF_MODEL} {{{{tier}}}} limit")],
        size=(12, 9),
        unit="none",
        field=LAYERS_FROM_ZERO,
        overrides=[_DASHED],
    )


def _alarms(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Points in alarm by agent",
        "Sides of layers in alarm, as each agent sees it by itself: from the limit on, until surprise is below half the ticket's.",
        [target(total(ask.gauge(catalog.ALARM, LAYERS, POINT), "model", "instance", "tier"), f"{OF_AGENT} {{{{tier}}}}")],
        size=(12, 7),
        unit="none",
        field={"min": 0, "decimals": 0},
    )


def _pods_apart(ask: Queries) -> TimeSeries:
    means = ask.known(catalog.WINDOW_MEAN, LAYERS, POINT)
    spread = f"({largest(means, *BY_POINT)} - {smallest(means, *BY_POINT)})"
    return TimeSeries(
        "Pods apart",
        "Range of the pods' window means, in standard deviations: high where one pod strays from the others.",
        [target(f"{spread} / ({ask.of_pods(catalog.WINDOW_STD)} > 0)", OF_POINT)],
        size=(12, 7),
        unit="none",
        field=LAYERS_FROM_ZERO,
        links=ask.runbook("GeluwatchPodDrift"),
    )
