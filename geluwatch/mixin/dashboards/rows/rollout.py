"""Deployments: which versions ran when, and how a canary does beside the stable pods."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin.dashboards.parts import (
    LAYERS,
    LAYERS_FROM_ZERO,
    OF_MODEL,
    ONLY_THIS_MODEL,
    OVER_VERSIONS,
    POINT,
    VERDICT_WORDS,
    Queries,
    Row,
    worst_verdict,
)
from geluwatch.mixin.panels import (
    BLUE,
    EMPTY_CELLS,
    PURPLE,
    Json,
    StateTimeline,
    Table,
    TimeSeries,
    cells,
    columns,
    dashed,
    override,
    steps,
    target,
)
from geluwatch.mixin.queries import GROUP, largest, number, quantile, smallest, total
from geluwatch.mixin.rules import fleet

_COLUMNS = ("Pods", "Verdict", "Latency p95", "Failed passes", "NaN or Inf", "Drift evidence")
Measure = Callable[[Callable[..., str]], str]


def row(ask: Queries) -> Row:
    """Return the row of deployments and canaries."""
    return Row("Deployments and canary", (timeline(ask), canary(ask), beside(ask)))


def timeline(ask: Queries, size: tuple[int, int] = (12, 8)) -> StateTimeline:
    """Return the pods of each model version over time, canaries apart."""
    stable, canary_ = (number(side(ask.gauge, catalog.BUILD_INFO), *GROUP) for side in (ask.stable, ask.canary))
    return StateTimeline(
        "Pods by model version",
        "When each model version ran, and on how many pods; canaries have a line of their own. A fault that began with a new version is "
        "that version's until shown otherwise.",
        [target(stable, OF_MODEL), target(canary_, f"{OF_MODEL} canary")],
        size=size,
        unit="none",
        field={**ONLY_THIS_MODEL, "decimals": 0, "noValue": "No agent", "thresholds": steps(BLUE)},
        overrides=[override("byRegexp", ".* canary$", thresholds=steps(PURPLE))],
        links=ask.runbook("Rollout"),
    )


def canary(ask: Queries) -> TimeSeries:
    """Return how far canaries are from stable pods, and from where that is too far."""
    limits = ask.settings.thresholds
    labels = ("model", "region", "layer", "point")
    apart = ask.rule(fleet.CANARY_KS, LAYERS, POINT)
    stable = ask.rule(fleet.FARTHEST, LAYERS, POINT, chosen=OVER_VERSIONS)
    limit = f"clamp_min({limits.canary_factor:g} * {largest(stable, *labels)}, {limits.canary_distance:g}) and {largest(apart, *labels)}"
    return TimeSeries(
        "Canary against stable",
        "KS distance of the canary's activations from the stable pods', by layer, on the side of the GELU where it is larger. Dashed: the "
        f"lowest limit of a model's layers. A limit is {limits.canary_factor:g} times what the stable pods show among themselves and at "
        f"least {limits.canary_distance:g}.",
        [
            target(largest(apart, "model", "region", "layer"), "{{layer}} of {{model}} {{region}}"),
            target(smallest(limit, "model", "region"), "{{model}} {{region}} limit"),
        ],
        size=(12, 8),
        unit="none",
        field={**LAYERS_FROM_ZERO, "decimals": 3, "noValue": "No canary"},
        overrides=[dashed(".* limit$")],
        links=ask.runbook("CanaryDivergence"),
    )


def beside(ask: Queries, size: tuple[int, int] = (24, 5)) -> Table:
    """Return the table of canaries and stable pods."""
    renamed = {f"Value #{letter}": name for letter, name in zip("ABCDEF", _COLUMNS, strict=True)}
    return Table(
        "Canary beside stable",
        "The canary's pods and the stable ones, side by side: what to look at before a canary is promoted or rolled back.",
        [cells(_both(ask, measure)) for measure in _measures(ask)],
        size=size,
        unit="none",
        field={"noValue": "No canary"},
        overrides=[
            EMPTY_CELLS,
            override("byName", "side", mappings=[_painted_sides()], custom__cellOptions={"type": "color-text"}),
            override("byName", "Verdict", mappings=VERDICT_WORDS, custom__cellOptions={"type": "color-background"}),
            override("byName", "Latency p95", unit="s"),
            override("byName", "Failed passes", unit="percentunit", decimals=2),
            override("byName", "NaN or Inf", unit="percentunit", decimals=2),
            override("byName", "Drift evidence", decimals=2),
        ],
        options={"sortBy": [{"displayName": "model", "desc": False}]},
        transformations=[
            {"id": "merge", "options": {}},
            columns(hide=("Time", "cluster", "namespace", "job"), rename=renamed, order=("side", "model", "model_version", "region")),
        ],
        links=ask.runbook("CanaryDivergence"),
    )


def _painted_sides() -> Json:
    return {"type": "value", "options": {"canary": {"text": "canary", "color": PURPLE}, "stable": {"text": "stable", "color": BLUE}}}


def _measures(ask: Queries) -> tuple[Measure, ...]:
    """Return what is measured of each side, by the function that limits a query to it."""
    return (
        lambda side: number(side(ask.gauge, catalog.BUILD_INFO), *GROUP),
        lambda side: worst_verdict(partial(side, ask.gauge), *GROUP),
        lambda side: quantile(0.95, total(side(ask.rate, catalog.FORWARD_SECONDS), "le", *GROUP)),
        lambda side: _share(ask, catalog.FAILED_FORWARDS, side),
        lambda side: _share(ask, catalog.NONFINITE_FORWARDS, side),
        lambda side: largest(side(ask.known, catalog.EVIDENCE), *GROUP),
    )


def _share(ask: Queries, metric: Metric, side: Callable[..., str]) -> str:
    """Return the share of one side's passes that a counter counts."""
    return f"{total(side(ask.rate, metric), *GROUP)} / ({total(side(ask.rate, catalog.FORWARDS), *GROUP)} > 0)"


def _both(ask: Queries, measure: Measure) -> str:
    """Return a measure of canaries and of the stable pods of the models that have one, told apart by a label."""
    beside = f"and on ({', '.join(fleet.SERVICE)}) {ask.canary(ask.gauge, catalog.BUILD_INFO)}"
    sides = {"canary": measure(ask.canary), "stable": f"({measure(ask.stable)}) {beside}"}
    return "\nor\n".join(f'label_replace({expr}, "side", "{side}", "", "")' for side, expr in sides.items())
