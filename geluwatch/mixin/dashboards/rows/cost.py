"""What inferences cost, in the currency of whoever reports the price of an hour, and how many there are."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import OF_AGENT, OF_MODEL, ONLY_THIS_MODEL, Queries, amounts
from geluwatch.mixin.panels import TEXT, Figure, TimeSeries, dashed, per_second, target
from geluwatch.mixin.queries import largest, total

_NOT_REPORTED = "Not reported"


def million(ask: Queries) -> Figure:
    """Return the tile with what a million inferences cost over all models."""
    hourly, samples = (total(ask.rule(name)) for name in (ask.recorded.cost_per_hour, ask.recorded.samples))
    return Figure(
        "Cost per million",
        "What a million inferences cost over all chosen models, idle pods included, in the currency of whoever reports the price.",
        [target(f"1e6 / 3600 * {hourly} / ({samples} > 0)", "cost")],
        size=(3, 4),
        unit="none",
        field={"decimals": 2, "noValue": _NOT_REPORTED},
        options={"textMode": "value"},
        links=ask.runbook("CostUp"),
    )


def per_million(ask: Queries) -> TimeSeries:
    """Return what a million inferences cost, now and earlier."""
    cost, factor = ask.rule(ask.recorded.cost_per_million), ask.settings.thresholds.cost_factor
    day, week = ask.settings.usual_range, ask.settings.compare_offset
    return TimeSeries(
        "Cost per million inferences",
        f"What a million inferences cost. Dashed: the same {day} and {week} before; {factor:g} times both is a ticket.",
        [
            target(cost, OF_MODEL),
            target(f"{cost} offset {day}", f"{OF_MODEL} {day} before"),
            target(f"{cost} offset {week}", f"{OF_MODEL} {week} before"),
        ],
        size=(8, 8),
        unit="none",
        field={**ONLY_THIS_MODEL, "min": 0, "noValue": _NOT_REPORTED},
        overrides=[dashed(".* before$", TEXT)],
        links=ask.runbook("CostUp"),
    )


def per_hour(ask: Queries) -> TimeSeries:
    """Return what an hour costs."""
    hourly = target(ask.rule(ask.recorded.cost_per_hour), OF_MODEL)
    field = {"min": 0, "noValue": _NOT_REPORTED}
    return amounts("Cost per hour", "What an hour of all pods of a model version costs.", hourly, unit="none", size=(8, 8), field=field)


def by_pod(ask: Queries) -> TimeSeries:
    """Return what an hour of each pod costs."""
    hourly = target(largest(ask.gauge(catalog.COST), "model", "instance"), OF_AGENT)
    field = {"min": 0, "noValue": _NOT_REPORTED}
    return amounts(
        "Cost of each pod per hour",
        "What the application says that an hour of its process costs.",
        hourly,
        unit="none",
        size=(12, 7),
        field=field,
    )


def throughput(ask: Queries) -> TimeSeries:
    """Return the samples a second."""
    return amounts(
        "Throughput",
        "Samples a second of each model version; the shards of a model see the same samples, which count once.",
        target(ask.rule(ask.recorded.samples), OF_MODEL),
        unit=per_second("samples"),
        size=(8, 8),
    )
