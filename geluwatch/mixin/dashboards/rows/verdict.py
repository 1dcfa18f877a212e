"""The verdicts of the agents, and the alarms that they sum up."""

from __future__ import annotations

from collections.abc import Sequence

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import (
    BY_LAYER,
    BY_POINT,
    OF_MODEL,
    ONLY_THIS_MODEL,
    VERDICT_COLOURS,
    VERDICT_WORDS,
    VERDICTS,
    Queries,
    worst_verdict,
)
from geluwatch.mixin.panels import BLUE, NEUTRAL, ORANGE, PURPLE, RED, Json, Stat, StateTimeline, judged, override, steps, target
from geluwatch.mixin.queries import GROUP, largest, mean, number, total
from geluwatch.mixin.rules.drift import MOST_EVIDENCE

_WORST_FIRST = sorted(enumerate(VERDICTS, start=1), reverse=True)


def agents(ask: Queries) -> Stat:
    """Return the tiles with how many agents give each verdict."""
    return _tiles(
        "Agents by verdict",
        "How many agents give each verdict now: page for NaN, Inf, gross faults or strong drift, ticket for drift, ok, warming, blind.",
        [target(total(ask.gauge(catalog.VERDICT, f'verdict="{verdict}"')), verdict) for verdict in reversed(VERDICTS)],
        ask.runbook("AgentMissing"),
    )


def models(ask: Queries) -> Stat:
    """Return the tiles with how many models have each verdict as their worst."""
    worst = worst_verdict(ask.gauge, *GROUP)
    asked = [target(ask.or_zero(number(f"{worst} == {rank}"), catalog.VERDICT), verdict) for rank, verdict in _WORST_FIRST]
    text = "How many model versions have each verdict, by the worst of their agents: page and ticket need somebody, blind is not watched."
    return _tiles("Models by verdict", text, asked)


def _tiles(title: str, description: str, asked: Sequence[object], links: Sequence[Json] = ()) -> Stat:
    return Stat(
        title,
        description,
        asked,
        size=(6, 4),
        field={"noValue": "No agent", "thresholds": steps(NEUTRAL)},
        overrides=[override("byName", name, thresholds=steps(NEUTRAL, (1, colour))) for name, colour in VERDICT_COLOURS.items()],
        links=links,
    )


def timeline(ask: Queries, size: tuple[int, int] = (10, 9)) -> StateTimeline:
    """Return the worst verdict of each model over time, which tells which model and since when."""
    return StateTimeline(
        "Verdict of each model",
        "The worst verdict among the agents of each model version, over time. A click opens the model in the debug dashboard.",
        [target(worst_verdict(ask.gauge, *GROUP), OF_MODEL)],
        size=size,
        unit="none",
        field={**ONLY_THIS_MODEL, "mappings": VERDICT_WORDS, "noValue": "No agent"},
    )


def nonfinite(ask: Queries) -> Stat:
    """Return the tile of passes with NaN or Inf."""
    return _alarm(
        "Passes with NaN or Inf",
        "Forward passes in the shown time range in which some GELU met a NaN or an Inf.",
        ask.or_zero(total(ask.grown(catalog.NONFINITE_FORWARDS)), catalog.BUILD_INFO),
        RED,
        ask.runbook("NonFiniteActivations"),
    )


def out_of_memory(ask: Queries) -> Stat:
    """Return the tile of passes that ran out of memory."""
    return _alarm(
        "Passes out of memory",
        "Forward passes in the shown time range that ran out of memory, of the host or of a device.",
        ask.or_zero(total(ask.grown(catalog.OUT_OF_MEMORY)), catalog.BUILD_INFO),
        RED,
        ask.runbook("OutOfMemory"),
    )


def gross(ask: Queries) -> Stat:
    """Return the tile of layers that are grossly wrong."""
    faults = f"{largest(ask.gauge(catalog.GROSS), *BY_LAYER)} == 1"
    return _alarm(
        "Layers grossly wrong",
        "Layers that are dead or give values that no GELU gives, baseline or not.",
        ask.or_zero(number(faults), catalog.GROSS),
        RED,
        ask.runbook("GrossFault"),
    )


def drift(ask: Queries) -> Stat:
    """Return the tile of layers in drift."""
    evidence = mean(f"clamp_max({ask.known(catalog.EVIDENCE)}, {MOST_EVIDENCE})", *BY_POINT)  # as the rule counts it
    drifting = f"{largest(evidence, *BY_LAYER)} >= 1"
    return _alarm(
        "Layers in drift",
        "Layers whose evidence, averaged over pods, has reached 1 on either side of the GELU.",
        ask.or_zero(number(drifting), catalog.EVIDENCE),
        ORANGE,
        ask.runbook("ActivationDrift"),
    )


def baseline(ask: Queries) -> Stat:
    """Return the tile of agents without a baseline."""
    return _alarm(
        "Agents without baseline",
        "Agents that have no baseline armed, and so cannot see drift.",
        ask.or_zero(number(f"{ask.gauge(catalog.BASELINE_ARMED)} == 0"), catalog.BASELINE_ARMED),
        BLUE,
        ask.runbook("BaselineMissing"),
    )


def blind(ask: Queries) -> Stat:
    """Return the tile of GELUs that cannot be observed."""
    return _alarm(
        "Blind GELUs",
        "GELU call sites that cannot be observed; the census names them.",
        ask.or_zero(number(f"{ask.gauge(catalog.SITE_OBSERVED)} == 0"), catalog.SITE_OBSERVED),
        PURPLE,
        ask.runbook("SitesBlind"),
    )


def _alarm(title: str, description: str, expr: str, colour: str, links: Sequence[Json]) -> Stat:
    field = {"noValue": "No reading", "decimals": 0, "thresholds": judged((0.5, colour))}
    return Stat(
        title,
        description,
        [target(expr, title, instant=True)],  # the last value is all that is shown, and over ranges the others cost a lot
        size=(3, 4),
        unit="locale",
        field=field,
        options={"textMode": "value"},
        links=links,
    )
