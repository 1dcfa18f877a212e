"""Drift: which layers, which of them first, how surprising, against which limits."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import (
    BY_LAYER,
    LAYERS,
    LAYERS_FROM_ZERO,
    OF_LAYER,
    OF_MODEL,
    OF_POINT,
    ONLY_THIS_LAYER,
    Queries,
)
from geluwatch.mixin.panels import (
    GREEN,
    LINE_AT_THRESHOLD,
    NEUTRAL,
    ORANGE,
    RED,
    Stat,
    Table,
    TimeSeries,
    cells,
    columns,
    dashed,
    override,
    steps,
    target,
    texts,
)
from geluwatch.mixin.queries import GROUP, POD, largest, number, smallest

_HIDDEN = ("Time", "cluster", "namespace", "job", "region")


def began(ask: Queries) -> Stat:
    """Return the layer where the present drift began."""
    return Stat(
        "Where drift began",
        "The layer where the present drift began, by number of pods. Scope traffic: most layers moved alike, look at the input. "
        "Scope model: this layer moved and the others did not, look at the model there.",
        [target(number(f"{ask.gauge(catalog.FIRST_DRIFT)} == 1", *BY_LAYER, "scope"), f"{{{{scope}}}}: {OF_LAYER}", instant=True)],
        size=(9, 6),
        unit="none",
        field={**ONLY_THIS_LAYER, "noValue": "No drift", "thresholds": steps(GREEN, (0, ORANGE))},
        options={"textMode": "name", "orientation": "horizontal"},
        links=ask.runbook("ActivationDrift"),
    )


def since(ask: Queries) -> Stat:
    """Return how long layers have been drifting."""
    return Stat(
        "Drifting for",
        "How long each layer has been drifting, as far as the windows tell; the pod that drifts longest.",
        [target(largest(f"time() - {ask.gauge(catalog.ONSET, LAYERS)}", *BY_LAYER), OF_LAYER, instant=True)],
        size=(6, 6),
        unit="s",
        field={**ONLY_THIS_LAYER, "noValue": "No drift", "thresholds": steps(GREEN, (0, ORANGE))},
        options={"textMode": "value_and_name", "orientation": "horizontal"},
        links=ask.runbook("ActivationDrift"),
    )


def evidence(ask: Queries) -> TimeSeries:
    """Return the evidence of drift over time."""
    return TimeSeries(
        "Drift evidence by layer",
        "Surprise over the ticket's limit, averaged over pods, on the side of the GELU where it is larger: drift from the line at 1 on. "
        "Look at the earliest layer first.",
        [target(largest(ask.of_pods(catalog.EVIDENCE), *BY_LAYER), OF_LAYER)],
        size=(12, 9),
        unit="none",
        field={**LAYERS_FROM_ZERO, "thresholds": steps(NEUTRAL, (1, RED))},
        custom=LINE_AT_THRESHOLD,
        links=ask.runbook("ActivationDrift"),
    )


def probes(ask: Queries) -> TimeSeries:
    """Return what the probes' replays differ by over time."""
    return TimeSeries(
        "Probe difference by layer",
        "What the probe's values differ by from those stored with the baseline, over their size, on the pod where that is most: rounding, "
        "below 0.00001 in float32, for the same model. The first layer above it is where the model changed.",
        [target(largest(ask.gauge(catalog.PROBE_DIFFERENCE, LAYERS), *BY_LAYER), OF_LAYER)],
        size=(12, 8),
        unit="none",
        field={**LAYERS_FROM_ZERO, "noValue": "No probe replayed"},
        links=ask.runbook("ModelChanged"),
    )


def probed(ask: Queries) -> Table:
    """Return the table of what the last probe of each pod said."""
    names = {"Value #A": "Replayed", "Value #B": "Model", "model": "Model name", "instance": "Pod"}
    words = texts({0: ("the same", GREEN), 1: ("changed", RED)})
    return Table(
        "Probes",
        "When each pod last replayed its probe, and whether the model was still the one that the baseline was recorded on.",
        [cells(largest(f"1000 * {ask.gauge(catalog.PROBE_TIME)}", *POD)), cells(largest(ask.gauge(catalog.PROBE_MOVED), *POD))],
        size=(12, 8),
        unit="string",
        field={"noValue": "No probe replayed"},
        overrides=[
            override("byName", "Replayed", unit="dateTimeFromNow"),
            override("byName", "Model", mappings=words, custom__cellOptions={"type": "color-text"}),
        ],
        transformations=[{"id": "merge", "options": {}}, columns(hide=_HIDDEN, rename=names)],
        links=ask.runbook("ModelChanged"),
    )


def surprise(ask: Queries) -> TimeSeries:
    """Return the surprise against the limits of both tiers."""
    limit = smallest(ask.gauge(catalog.LIMIT), *GROUP, "tier")
    return TimeSeries(
        "Surprise and limits",
        "Negative decimal logarithm of the probability in calm traffic, averaged over pods: 3 is once in a thousand looks. "
        "Dashed: from where it is a ticket, and a page; a baseline too short to page has no limit for it.",
        [target(ask.of_pods(catalog.SURPRISE), OF_POINT), target(limit, f"{OF_MODEL} {{{{tier}}}} limit")],
        size=(12, 9),
        unit="none",
        field=LAYERS_FROM_ZERO,
        overrides=[dashed(".* ticket limit$"), dashed(".* page limit$", RED)],
        links=ask.runbook("ActivationDrift"),
    )
