"""The first row: is something wrong, and what."""

from __future__ import annotations

from collections.abc import Sequence

from geluwatch import catalog
from geluwatch.mixin.overview.parts import BY_LAYER, BY_POINT, FIRING, Queries, Row
from geluwatch.mixin.panels import BLUE, GREEN, NEUTRAL, ORANGE, PURPLE, RED, Json, Stat, Table, columns, override, steps, target
from geluwatch.mixin.queries import largest, mean, number, total

_COLOURS = {"page": RED, "ticket": ORANGE, "ok": GREEN, "warming": BLUE, "blind": PURPLE}


def row(ask: Queries) -> Row:
    """Return the row of verdicts and alarms."""
    alarms = (_nonfinite(ask), _gross(ask), _drift(ask), _baseline(ask), _blind(ask))
    return Row("Verdict", (_verdicts(ask), *alarms, _firing(), _alerts()))


def _verdicts(ask: Queries) -> Stat:
    return Stat(
        "Agents by verdict",
        "How many agents give each verdict now: page for NaN, Inf, gross faults or strong drift, ticket for drift, ok, warming, blind.",
        [target(total(ask.gauge(catalog.VERDICT), "verdict"), "{{verdict}}")],
        size=(6, 4),
        field={"noValue": "No agent"},
        overrides=[override("byName", name, thresholds=steps(NEUTRAL, (1, colour))) for name, colour in _COLOURS.items()],
        links=ask.runbook("GeluwatchAgentMissing"),
    )


def _nonfinite(ask: Queries) -> Stat:
    return _alarm(
        "Passes with NaN or Inf",
        "Forward passes in the shown time range in which some GELU met a NaN or an Inf.",
        ask.or_zero(total(ask.grown(catalog.NONFINITE_FORWARDS)), catalog.BUILD_INFO),
        RED,
        ask.runbook("GeluwatchNonFiniteActivations"),
    )


def _gross(ask: Queries) -> Stat:
    faults = f"{largest(ask.gauge(catalog.GROSS), *BY_LAYER)} == 1"
    return _alarm(
        "Layers grossly wrong",
        "Layers that are dead or give values that no GELU gives, baseline or not.",
        ask.or_zero(number(faults), catalog.GROSS),
        RED,
        ask.runbook("GeluwatchGrossFault"),
    )


def _drift(ask: Queries) -> Stat:
    drifting = f"{largest(mean(ask.known(catalog.EVIDENCE), *BY_POINT), *BY_LAYER)} >= 1"
    return _alarm(
        "Layers in drift",
        "Layers whose evidence, averaged over pods, has reached 1 on either side of the GELU.",
        ask.or_zero(number(drifting), catalog.EVIDENCE),
        ORANGE,
        ask.runbook("GeluwatchActivationDrift"),
    )


def _baseline(ask: Queries) -> Stat:
    return _alarm(
        "Agents without baseline",
        "Agents that have no baseline armed, and so cannot see drift.",
        ask.or_zero(number(f"{ask.gauge(catalog.BASELINE_ARMED)} == 0"), catalog.BASELINE_ARMED),
        BLUE,
        ask.runbook("GeluwatchBaselineMissing"),
    )


def _blind(ask: Queries) -> Stat:
    return _alarm(
        "Blind GELUs",
        "GELU call sites that cannot be observed; the census below names them.",
        ask.or_zero(number(f"{ask.gauge(catalog.SITE_OBSERVED)} == 0"), catalog.SITE_OBSERVED),
        PURPLE,
    )


def _alarm(title: str, description: str, expr: str, colour: str, links: Sequence[Json] = ()) -> Stat:
    field = {"noValue": "No reading", "decimals": 0, "thresholds": steps(GREEN, (0.5, colour))}
    return Stat(title, description, [target(expr, title)], size=(3, 4), field=field, links=links)


def _firing() -> Stat:
    return Stat(
        "Alerts firing",
        "Alerts of geluwatch that fire now.",
        [target(f"{number(FIRING)} or vector(0)", "firing")],
        size=(3, 4),
        field={"thresholds": steps(GREEN, (1, RED))},
    )


def _alerts() -> Table:
    return Table(
        "Firing alerts",
        "What fires now; the runbook of an alert bears its name.",
        [target(FIRING, "", instant=True, form="table")],
        size=(24, 5),
        unit="string",
        field={"noValue": "Nothing fires"},
        transformations=[columns(hide=("Time", "Value", "__name__", "alertstate"))],
    )
