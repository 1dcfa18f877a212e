"""What the agents cost, where they fail, and what they export."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import OF_AGENT, ONLY_THIS_POD, PODS_FROM_ZERO, Queries, Row, amounts
from geluwatch.mixin.panels import (
    GREEN,
    LINE_AT_THRESHOLD,
    NEUTRAL,
    ORANGE,
    RED,
    Bars,
    Json,
    Stat,
    StateTimeline,
    TimeSeries,
    judged,
    per_second,
    steps,
    target,
)
from geluwatch.mixin.queries import POD, largest, number, total
from geluwatch.mixin.rules.agents import OVER_BUDGET


def broken(ask: Queries) -> Stat:
    """Return the tile with the parts that breakers have switched off."""
    off = f"{ask.gauge(catalog.PART_DISABLED)} == 1"
    return _tile(
        "Parts switched off",
        "Parts of agents that their breakers have switched off after failing again and again: what they would have seen goes unseen.",
        ask.or_zero(number(off), catalog.PART_DISABLED),
        ask.runbook("AgentFaulty"),
    )


def dear(ask: Queries) -> Stat:
    """Return the tile with the agents that cost more than they may."""
    over = f"{ask.rate(catalog.HOOK_SECONDS)} > {OVER_BUDGET:g} * {ask.gauge(catalog.COST_BUDGET)}"
    return _tile(
        "Agents over budget",
        f"Agents whose capture takes more than {OVER_BUDGET:g} times the share of the model's time that its budget allows.",
        ask.or_zero(number(over), catalog.BUILD_INFO),
        ask.runbook("AgentOverBudget"),
    )


def _tile(title: str, description: str, expr: str, links: list[Json]) -> Stat:
    field = {"noValue": "No agent", "decimals": 0, "thresholds": judged((0.5, ORANGE))}
    return Stat(title, description, [target(expr, title)], size=(3, 4), field=field, options={"textMode": "value"}, links=links)


def row(ask: Queries) -> Row:
    """Return the row of what agents cost and where they fail."""
    return Row("Agent health", (_cost(ask), budget(ask), _dropped(ask), errors(ask), _errors_by_part(ask), _parts(ask), _switched_off(ask)))


def export_row(ask: Queries) -> Row:
    """Return the row of what agents export."""
    return Row("Export", (_series(ask), _profiles(ask), _rendering(ask)))


def _cost(ask: Queries) -> TimeSeries:
    return amounts(
        "Cost",
        "Share of one thread's time: capture runs in the model's threads and is kept within the budget, flushing runs beside.",
        target(ask.rate(catalog.HOOK_SECONDS), f"{OF_AGENT} capture"),
        target(ask.rate(catalog.FLUSH_SECONDS), f"{OF_AGENT} flush"),
        unit="percentunit",
        size=(8, 8),
        field=PODS_FROM_ZERO,
        links=ask.runbook("AgentOverBudget"),
    )


def budget(ask: Queries, size: tuple[int, int] = (8, 8)) -> TimeSeries:
    """Return how much of their budgets agents use."""
    return TimeSeries(
        "Cost against budget",
        f"Time of capture over what the budget allows. Above the line at {OVER_BUDGET:.0%} for long it is a ticket.",
        [target(f"{ask.rate(catalog.HOOK_SECONDS)} / ({ask.gauge(catalog.COST_BUDGET)} > 0)", OF_AGENT)],
        size=size,
        unit="percentunit",
        field={**PODS_FROM_ZERO, "noValue": "No budget set", "thresholds": steps(NEUTRAL, (OVER_BUDGET, ORANGE))},
        custom=LINE_AT_THRESHOLD,
        links=ask.runbook("AgentOverBudget"),
    )


def errors(ask: Queries, size: tuple[int, int] = (6, 8)) -> TimeSeries:
    """Return which agents fail."""
    return amounts(
        "Errors by agent",
        "Failures inside each agent, caught before they reach the model. A part that goes on failing is switched off.",
        target(total(ask.rate(catalog.ERRORS), "model", "instance"), OF_AGENT),
        unit=per_second("errors"),
        size=size,
        field=PODS_FROM_ZERO,
        links=ask.runbook("AgentFaulty"),
    )


def _errors_by_part(ask: Queries) -> TimeSeries:
    return amounts(
        "Errors by part",
        "The same failures by the part of the agent that they are in.",
        target(total(ask.rate(catalog.ERRORS), "part"), "{{part}}"),
        unit=per_second("errors"),
        size=(6, 8),
        links=ask.runbook("AgentFaulty"),
    )


def _parts(ask: Queries) -> StateTimeline:
    return StateTimeline(
        "Parts off by agent",
        "How many parts of each agent are switched off, over time.",
        [target(total(ask.gauge(catalog.PART_DISABLED), "model", "instance"), OF_AGENT)],
        size=(6, 8),
        unit="none",
        field={**ONLY_THIS_POD, "decimals": 0, "noValue": "No agent", "thresholds": steps(GREEN, (1, RED))},
        links=ask.runbook("AgentFaulty"),
    )


def _switched_off(ask: Queries) -> Bars:
    return Bars(
        "Agents without each part",
        "On how many agents each part is switched off.",
        [target(total(ask.gauge(catalog.PART_DISABLED), "part"), "{{part}}", instant=True)],
        size=(6, 8),
        unit="none",
        field={"min": 0, "decimals": 0, "noValue": "No agent", "thresholds": steps(GREEN, (1, RED))},
        links=ask.runbook("AgentFaulty"),
    )


def _dropped(ask: Queries) -> TimeSeries:
    rows = target(ask.rate(catalog.DROPPED_ROWS), OF_AGENT)
    return amounts(
        "Dropped rows",
        "Captured rows dropped because too many were waiting.",
        rows,
        unit=per_second("rows"),
        size=(8, 8),
        field=PODS_FROM_ZERO,
    )


def _by_profile(ask: Queries) -> str:
    """Return the series that each agent exports, labelled with its profile."""
    exported, profile = ask.gauge(catalog.EXPORTED_SERIES), ask.gauge(catalog.PROFILE_INFO)
    return f"{exported} * on ({', '.join(POD)}) group_left (profile) {profile}"


def _series(ask: Queries) -> TimeSeries:
    return amounts(
        "Exported series",
        "Series each agent exports, which is what it costs Prometheus, and its profile: lean, standard or full.",
        target(largest(_by_profile(ask), "model", "instance", "profile"), f"{OF_AGENT} {{{{profile}}}}"),
        unit="short",
        size=(8, 8),
        field=PODS_FROM_ZERO,
    )


def _profiles(ask: Queries) -> TimeSeries:
    return amounts(
        "Series by profile",
        "All series of ours by profile: what a move from one profile to another would save.",
        target(total(_by_profile(ask), "profile"), "{{profile}}"),
        unit="short",
        size=(8, 8),
    )


def _rendering(ask: Queries) -> TimeSeries:
    seconds = target(ask.gauge(catalog.COLLECT_SECONDS), OF_AGENT)
    return amounts("Time to render", "Time the last exposition took.", seconds, unit="s", size=(8, 8), field=PODS_FROM_ZERO)
