"""The census: which GELUs are watched, by which agents, against which baselines."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import Queries, Row, drill_down
from geluwatch.mixin.panels import GREEN, PURPLE, Json, Table, cells, columns, override, texts
from geluwatch.mixin.queries import largest, smallest

_SITE = ("model", "layer")
_AGENT = ("job", "instance", "model", "model_version")
_MERGED: Json = {"id": "merge", "options": {}}
_LIVE_PAGE = override("byName", "instance", links=[{"title": "Live page", "url": "http://${__value.text}/", "targetBlank": True}])


def row(ask: Queries) -> Row:
    """Return the row of GELUs, agents and baselines."""
    return Row("Census", (agents(ask), sites(ask), baselines(ask)))


def sites(ask: Queries) -> Table:
    """Return the table of GELUs."""
    words = texts({0: ("blind", PURPLE), 1: ("observed", GREEN)})
    return Table(
        "GELUs",
        "Every GELU call site by the model's order, and whether it is observed.",
        [cells(smallest(ask.gauge(catalog.LAYER_INDEX), *_SITE)), cells(smallest(ask.gauge(catalog.SITE_OBSERVED), *_SITE))],
        size=(10, 9),
        unit="none",
        overrides=[
            override("byName", "State", mappings=words, custom__cellOptions={"type": "color-text"}),
            override("byName", "layer", links=[drill_down("Debug this layer", layer="${__value.text}")]),
        ],
        options={"sortBy": [{"displayName": "Place", "desc": False}]},
        transformations=[_MERGED, columns(hide=("Time",), rename={"Value #A": "Place", "Value #B": "State"})],
    )


def agents(ask: Queries) -> Table:
    """Return the table of agents."""
    return Table(
        "Agents",
        "Every agent, with the versions it runs and the baseline it has armed. Its instance opens its live page.",
        [
            cells(largest(f"{ask.gauge(catalog.ATTACHED)} * 1000", *_AGENT)),
            cells(largest(ask.gauge(catalog.BUILD_INFO), *_AGENT, "version", "framework")),
            cells(largest(ask.gauge(catalog.BASELINE_INFO), *_AGENT, "baseline")),
            cells(largest(f"{ask.gauge(catalog.BASELINE_TIME)} * 1000", *_AGENT)),
        ],
        size=(14, 9),
        unit="none",
        overrides=[override("byRegexp", "Attached|Recorded", unit="dateTimeFromNow"), _LIVE_PAGE],
        transformations=[_MERGED, columns(hide=("Time", "Value #B", "Value #C"), rename={"Value #A": "Attached", "Value #D": "Recorded"})],
    )


def baselines(ask: Queries) -> Table:
    """Return the table of baselines."""
    ticket, page = (ask.gauge(catalog.LIMIT, f'tier="{tier}"') for tier in catalog.TIERS)
    read = (ask.gauge(catalog.BASELINE_WINDOWS), ask.gauge(catalog.BASELINE_LOOKS), ticket, page)
    names = ("Windows", "Independent looks", "Ticket limit", "Page limit")
    return Table(
        "Baselines",
        "What each agent's baseline rests on, the surprise from which drift is a ticket or a page, and of what it was recorded. Without "
        "a page limit it is too short to page: that takes a hundred independent looks.",
        [
            cells(largest(ask.gauge(catalog.BASELINE_INFO), *_AGENT, "baseline")),
            *(cells(largest(expr, *_AGENT)) for expr in read),
            cells(largest(ask.gauge(catalog.BASELINE_ORIGIN), *_AGENT, *catalog.BASELINE_ORIGIN.labels)),
        ],
        size=(24, 6),
        unit="none",
        field={"decimals": 1, "noValue": "not armed"},
        transformations=[
            _MERGED,
            columns(
                hide=("Time", "Value #A", "Value #F"), rename={f"Value #{letter}": name for letter, name in zip("BCDE", names, strict=True)}
            ),
        ],
    )
