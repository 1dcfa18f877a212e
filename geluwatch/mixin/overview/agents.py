"""The last rows: what is watched, by which agents, and what those cost."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.overview.parts import OF_AGENT, Queries, Row, amounts
from geluwatch.mixin.panels import GREEN, PURPLE, RED, Json, Table, TimeSeries, columns, override, steps, target
from geluwatch.mixin.queries import largest, smallest, total

_SITE = ("model", "layer")
_AGENT = ("job", "instance", "model", "model_version")
_PART = ("model", "instance", "part")
_MERGED: Json = {"id": "merge", "options": {}}


def census_row(ask: Queries) -> Row:
    """Return the row of GELUs, agents and baselines."""
    return Row("Census", (_sites(ask), _agents(ask), _baselines(ask)))


def health_row(ask: Queries) -> Row:
    """Return the row of what the agents cost and where they fail."""
    series = _line("Exported series", "Series each agent exports: what it costs Prometheus.", "short", ask.gauge(catalog.EXPORTED_SERIES))
    render = _line("Time to render", "Time the last exposition took.", "s", ask.gauge(catalog.COLLECT_SECONDS))
    dropped = _line("Dropped rows", "Captured rows dropped because too many were waiting.", "cps", ask.rate(catalog.DROPPED_ROWS))
    return Row("Agent health", (_cost(ask), _errors(ask), _disabled(ask), dropped, series, render))


def _sites(ask: Queries) -> Table:
    state = {"0": {"text": "blind", "color": PURPLE}, "1": {"text": "observed", "color": GREEN}}
    texts = override("byName", "State", mappings=[{"type": "value", "options": state}], custom__cellOptions={"type": "color-text"})
    return Table(
        "GELUs",
        "Every GELU call site by the model's order, and whether it is observed.",
        [_rows(smallest(ask.gauge(catalog.LAYER_INDEX), *_SITE)), _rows(smallest(ask.gauge(catalog.SITE_OBSERVED), *_SITE))],
        size=(10, 9),
        unit="none",
        overrides=[texts],
        options={"sortBy": [{"displayName": "Place", "desc": False}]},
        transformations=[_MERGED, columns(hide=("Time",), rename={"Value #A": "Place", "Value #B": "State"})],
    )


def _agents(ask: Queries) -> Table:
    live_page = [{"title": "Live page", "url": "http://${__value.text}/", "targetBlank": True}]
    return Table(
        "Agents",
        "Every agent, with the versions it runs and the baseline it has armed. Its instance opens its live page.",
        [
            _rows(largest(f"{ask.gauge(catalog.ATTACHED)} * 1000", *_AGENT)),
            _rows(largest(ask.gauge(catalog.BUILD_INFO), *_AGENT, "version", "framework")),
            _rows(largest(ask.gauge(catalog.BASELINE_INFO), *_AGENT, "baseline")),
            _rows(largest(f"{ask.gauge(catalog.BASELINE_TIME)} * 1000", *_AGENT)),
        ],
        size=(14, 9),
        unit="none",
        overrides=[override("byRegexp", "Attached|Recorded", unit="dateTimeFromNow"), override("byName", "instance", links=live_page)],
        transformations=[_MERGED, columns(hide=("Time", "Value #B", "Value #C"), rename={"Value #A": "Attached", "Value #D": "Recorded"})],
    )


def _baselines(ask: Queries) -> Table:
    ticket, page = (ask.gauge(catalog.LIMIT, f'tier="{tier}"') for tier in catalog.TIERS)
    read = (ask.gauge(catalog.BASELINE_WINDOWS), ask.gauge(catalog.BASELINE_LOOKS), ticket, page)
    names = ("Windows", "Independent looks", "Ticket limit", "Page limit")
    return Table(
        "Baselines",
        "What each agent's baseline rests on, and the surprise from which drift is a ticket or a page. Without a page limit it is "
        "too short to page: that takes a hundred independent looks.",
        [
            _rows(largest(ask.gauge(catalog.BASELINE_INFO), *_AGENT, "baseline")),
            *(_rows(largest(expr, *_AGENT)) for expr in read),
        ],
        size=(24, 6),
        unit="none",
        field={"decimals": 1, "noValue": "not armed"},
        transformations=[
            _MERGED,
            columns(hide=("Time", "Value #A"), rename={f"Value #{letter}": name for letter, name in zip("BCDE", names, strict=True)}),
        ],
    )


def _rows(expr: str) -> object:
    return target(expr, "", instant=True, form="table")


def _cost(ask: Queries) -> TimeSeries:
    return amounts(
        "Cost",
        "Share of one thread's time: capture runs in the model's threads and is kept within the budget, flushing runs beside.",
        target(ask.rate(catalog.HOOK_SECONDS), f"{OF_AGENT} capture"),
        target(ask.rate(catalog.FLUSH_SECONDS), f"{OF_AGENT} flush"),
        unit="percentunit",
    )


def _errors(ask: Queries) -> TimeSeries:
    return amounts(
        "Errors by part",
        "Failures inside the agent, caught before they reach the model. A part that goes on failing is switched off.",
        target(total(ask.rate(catalog.ERRORS), *_PART), f"{OF_AGENT} {{{{part}}}}"),
        unit="cps",
    )


def _disabled(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Parts switched off",
        "1 for a part of an agent that its breaker has switched off.",
        [target(largest(ask.gauge(catalog.PART_DISABLED), *_PART), f"{OF_AGENT} {{{{part}}}}")],
        size=(8, 7),
        unit="none",
        field={"min": 0, "max": 1, "thresholds": steps(GREEN, (1, RED))},
    )


def _line(title: str, description: str, unit: str, expr: str) -> TimeSeries:
    return amounts(title, description, target(expr, OF_AGENT), unit=unit)
