"""Error budgets: how much is left, and how fast they are burnt."""

from __future__ import annotations

from geluwatch.mixin.dashboards.parts import OF_MODEL, ONLY_THIS_MODEL, Queries
from geluwatch.mixin.panels import GREEN, LINE_AT_THRESHOLD, LOWEST_FIRST, NEUTRAL, ORANGE, RED, Bars, Stat, TimeSeries, steps, target
from geluwatch.mixin.queries import largest, smallest
from geluwatch.mixin.rules.objectives import BURNS

_HOUR, _LONGEST = 2, -1
"""Places in `MixinSettings.burn_windows`."""

_FACTORS = [(tier, factor, long) for tier, burns in BURNS.items() for factor, long, _ in burns]
"""The burn rates that are told, by tier and the place of their long window."""

_LOW = 0.25


def left(ask: Queries, objective: str) -> Stat:
    """Return the tile with what is left of an objective's budget, for the model with least."""
    budget = ask.rule(ask.recorded.budget, f'slo="{objective}"')
    return Stat(
        f"{objective.title()} budget left",
        f"Error budget that is left of {ask.settings.burn_windows[_LONGEST]}, of the model version with least. Below zero it is overspent.",
        [target(smallest(budget), objective)],
        size=(3, 4),
        unit="percentunit",
        field={"decimals": 0, "noValue": "No traffic", "thresholds": steps(RED, (0, ORANGE), (_LOW, GREEN))},
        options={"textMode": "value"},
        links=ask.runbook("ErrorBudgetBurn"),
    )


def budget(ask: Queries) -> TimeSeries:
    """Return what is left of each budget over time."""
    return TimeSeries(
        "Error budget left",
        f"Share of the error budget of {ask.settings.burn_windows[_LONGEST]} that is left, by objective. At the line it is spent.",
        [target(ask.rule(ask.recorded.budget), f"{{{{slo}}}} of {OF_MODEL}")],
        size=(12, 8),
        unit="percentunit",
        field={**ONLY_THIS_MODEL, "max": 1, "thresholds": steps(RED, (0, NEUTRAL))},
        custom=LINE_AT_THRESHOLD,
        options=LOWEST_FIRST,
        links=ask.runbook("ErrorBudgetBurn"),
    )


def _burn(ask: Queries, place: int) -> str:
    """Return how many times faster than it lasts each budget is burnt over a window."""
    failing = ask.rule(ask.recorded.failing(place))
    return f"{failing} / (1 - {ask.rule(ask.recorded.objective)} > 0)"


def rates(ask: Queries) -> Bars:
    """Return each burn rate over the factor from which it is told."""
    asked = [
        target(
            f"{largest(f'({_burn(ask, place)})', 'slo')} / {factor:g}",
            f"{{{{slo}}}}: {factor:g}x over {ask.settings.burn_windows[place]}, {tier}",
            instant=True,
        )
        for tier, factor, place in _FACTORS
    ]
    return Bars(
        "Burn rates against their factors",
        "How much of each alert's factor is reached, by the model version that burns fastest: 100 % is the alert's limit. The budget "
        "of an objective lasts its whole range at a rate of 1x.",
        asked,
        size=(8, 8),
        unit="percentunit",
        field={"min": 0, "max": 1.5, "decimals": 0, "noValue": "No traffic", "thresholds": steps(GREEN, (0.5, ORANGE), (1, RED))},
        links=ask.runbook("ErrorBudgetBurn"),
    )


def burning(ask: Queries) -> TimeSeries:
    """Return the burn rate of the last hour."""
    factors = {tier: factor for tier, factor, place in _FACTORS if place == _HOUR}
    return TimeSeries(
        f"Burn rate over {ask.settings.burn_windows[_HOUR]}",
        f"How many times too fast each budget is burnt. Lines: {factors['ticket']:g}x is a ticket, {factors['page']:g}x a page.",
        [target(_burn(ask, _HOUR), f"{{{{slo}}}} of {OF_MODEL}")],
        size=(8, 8),
        unit="none",
        field={**ONLY_THIS_MODEL, "min": 0, "thresholds": steps(NEUTRAL, (factors["ticket"], ORANGE), (factors["page"], RED))},
        custom=LINE_AT_THRESHOLD,
        links=ask.runbook("ErrorBudgetBurn"),
    )
