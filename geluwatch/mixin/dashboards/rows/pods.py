"""Pods beside each other: which one strays from its fleet, and how far the fleet is from its baseline and its past."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import (
    BY_POD,
    BY_POINT,
    LAYERS,
    LAYERS_FROM_ZERO,
    OF_AGENT,
    OF_POINT,
    ONLY_THIS_POD,
    PODS,
    PODS_FROM_ZERO,
    POINT,
    Queries,
    Row,
    amounts,
)
from geluwatch.mixin.panels import (
    GREEN,
    LINE_AT_THRESHOLD,
    NEUTRAL,
    ORANGE,
    PURPLE,
    RED,
    TEXT,
    YELLOW,
    Figure,
    Json,
    Stat,
    StatusHistory,
    Table,
    TimeSeries,
    cells,
    columns,
    dashed,
    judged,
    override,
    steps,
    target,
)
from geluwatch.mixin.queries import GROUP, largest, number, smallest, total
from geluwatch.mixin.rules import fleet


def count(ask: Queries) -> Figure:
    """Return the tile with the number of pods."""
    return _figure("Pods", "Agents of the chosen models: one for each process and model.", number(ask.gauge(catalog.BUILD_INFO)))


def versions(ask: Queries) -> Figure:
    """Return the tile with the number of model versions."""
    return _figure(
        "Model versions", "Different versions of the chosen models that run now.", number(number(ask.gauge(catalog.BUILD_INFO), *GROUP))
    )


def _figure(title: str, description: str, expr: str) -> Figure:
    return Figure(title, description, [target(expr, title)], size=(3, 4), field={"noValue": "No agent"}, options={"textMode": "value"})


def straying(ask: Queries) -> Stat:
    """Return the tile with the pods that drift."""
    drifting = f"{largest(ask.known(catalog.EVIDENCE), *BY_POD)} >= 1"
    return _tile(
        "Pods in drift",
        "Pods whose own evidence has reached 1 at some layer; a single one among calm pods is that pod's trouble.",
        ask.or_zero(number(drifting), catalog.EVIDENCE),
        ORANGE,
        ask.runbook("PodDrift"),
    )


def unmatched(ask: Queries) -> Stat:
    """Return the tile with the layers whose fleet distance cannot be told."""
    edges, matched = (ask.rule(name) for name in (fleet.EDGES, fleet.MATCHED))
    return _tile(
        "Points not compared",
        "Sides of layers whose edges the baseline does not have, or of which the pods have different baselines: no fleet distance is "
        "recorded there.",
        f"{number(f'{edges} unless {matched} == {edges}')} or 0 * {number(edges)}",
        PURPLE,
        ask.runbook("BaselineMixed"),
    )


def _tile(title: str, description: str, expr: str, colour: str, links: list[Json]) -> Stat:
    field = {"noValue": "No reading", "decimals": 0, "thresholds": judged((0.5, colour))}
    return Stat(title, description, [target(expr, title)], size=(3, 4), field=field, options={"textMode": "value"}, links=links)


def outliers(ask: Queries) -> StatusHistory:
    """Return how far each pod is from its fleet, over time."""
    apart = largest(ask.rule(fleet.POD_KS, PODS, LAYERS, POINT), "model", "instance")
    return StatusHistory(
        "Pods against their fleet",
        "KS distance of each pod's activations from those of all pods of its model version, at the layer where it is largest. A single "
        "line that differs from the others is a stray pod; click it.",
        [target(apart, OF_AGENT)],
        size=(12, 9),
        unit="none",
        field={**ONLY_THIS_POD, "decimals": 3, "noValue": "Too few values", "thresholds": _distances(ask)},
        links=ask.runbook("PodDrift"),
    )


def matrix(ask: Queries) -> Table:
    """Return how far each pod is from its fleet now, layer by layer."""
    apart = largest(ask.rule(fleet.POD_KS, PODS, LAYERS, POINT), "instance", "layer")
    return Table(
        "Pods by layer, now",
        "The same by layer: a row for each pod, a column for each layer. One hot cell is a pod's layer, one hot column the layer of all.",
        [cells(apart)],
        size=(12, 9),
        unit="none",
        field={"decimals": 3, "noValue": "Too few values", "thresholds": _distances(ask)},
        overrides=[override("byRegexp", "^(?!instance).*$", custom__cellOptions={"type": "color-background", "mode": "basic"})],
        transformations=[
            columns(hide=("Time",)),
            {"id": "groupingToMatrix", "options": {"columnField": "layer", "rowField": "instance", "valueField": "Value"}},
        ],
        links=ask.runbook("PodDrift"),
    )


def _distances(ask: Queries) -> Json:
    """Return colours of distances, from what is looked at in a canary on."""
    seen = ask.settings.thresholds.canary_distance
    return steps(GREEN, (seen, YELLOW), (2 * seen, ORANGE), (4 * seen, RED))


def fleet_row(ask: Queries) -> Row:
    """Return the row of the whole fleet's distances."""
    return Row("Fleet against baseline and past", (_distance(ask), _week(ask)))


def _distance(ask: Queries) -> TimeSeries:
    distance, bound = (ask.rule(name, LAYERS, POINT) for name in (fleet.FLEET_KS, fleet.BOUND))
    return TimeSeries(
        "Fleet KS distance from the baseline",
        "KS distance of all pods together from the baseline, read off the buckets' edges. Dashed: by how much more it can be at most, "
        "before the GELU and after it, which is the largest mass of a baseline between two edges.",
        [target(distance, OF_POINT), target(largest(bound, "point"), "bound {{point}} the GELU")],
        size=(12, 9),
        unit="none",
        field={**LAYERS_FROM_ZERO, "decimals": 3, "noValue": "No baseline or too few values"},
        overrides=[dashed("^bound .*", TEXT)],
        links=ask.runbook("ActivationDrift", "BaselineMixed"),
    )


def _week(ask: Queries) -> TimeSeries:
    return TimeSeries(
        f"Fleet against {ask.settings.compare_offset} before",
        "KS distance of all pods together from what they were then, at the same hour: what changed slowly, baseline or not.",
        [target(ask.rule(fleet.WEEK_KS, LAYERS, POINT), OF_POINT)],
        size=(12, 9),
        unit="none",
        field={**LAYERS_FROM_ZERO, "decimals": 3, "noValue": "No record from then"},
    )


def evidence_row(ask: Queries) -> Row:
    """Return the row of drift as each pod sees it by itself."""
    return Row("Drift by pod", (evidence(ask, size=(8, 8)), _alarms(ask), _apart(ask)))


def evidence(ask: Queries, size: tuple[int, int] = (12, 9)) -> TimeSeries:
    """Return the evidence of drift as each pod sees it by itself."""
    return TimeSeries(
        "Drift evidence by pod",
        "Each pod's own surprise over the ticket's limit, at its most surprising layer: drift from the line at 1 on.",
        [target(largest(ask.known(catalog.EVIDENCE, LAYERS, POINT), *BY_POD), OF_AGENT)],
        size=size,
        unit="none",
        field={**PODS_FROM_ZERO, "thresholds": steps(NEUTRAL, (1, RED))},
        custom=LINE_AT_THRESHOLD,
        links=ask.runbook("PodDrift"),
    )


def _alarms(ask: Queries) -> TimeSeries:
    return amounts(
        "Points in alarm by agent",
        "Sides of layers in alarm, as each agent sees it by itself: from the limit on, until surprise is below half the ticket's.",
        target(total(ask.gauge(catalog.ALARM, LAYERS, POINT), "model", "instance", "tier"), f"{OF_AGENT} {{{{tier}}}}"),
        unit="none",
        size=(8, 8),
        field={**PODS_FROM_ZERO, "decimals": 0},
        links=ask.runbook("PodDrift"),
    )


def _apart(ask: Queries) -> TimeSeries:
    means = ask.known(catalog.WINDOW_MEAN, LAYERS, POINT)
    spread = f"({largest(means, *BY_POINT)} - {smallest(means, *BY_POINT)})"
    return TimeSeries(
        "Pods apart",
        "Range of the pods' window means, in standard deviations: high where one pod strays from the others.",
        [target(f"{spread} / ({ask.of_pods(catalog.WINDOW_STD)} > 0)", OF_POINT)],
        size=(8, 8),
        unit="none",
        field=LAYERS_FROM_ZERO,
        links=ask.runbook("PodDrift"),
    )
