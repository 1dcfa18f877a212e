"""A dashboard as JSON for Grafana 10 to 13: rows laid out, panels numbered, what Grafana has retired stripped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from grafanalib import core
from grafanalib._gen import DashboardEncoder

from geluwatch.mixin.dashboards.controls import TAG, events, links, variables
from geluwatch.mixin.dashboards.parts import Row
from geluwatch.mixin.panels import Json
from geluwatch.mixin.rulefile import GENERATED
from geluwatch.mixin.settings import MixinSettings

SCHEMA_VERSION = 39
"""That of Grafana 10.4 and 11; later ones migrate it, and below it the shared crosshair would be lost."""

_WIDTH = 24
_SHARED_CROSSHAIR = 1

_DEAD_DASHBOARD_KEYS = ("__inputs", "gnetId", "hideControls", "rows", "sharedCrosshair", "style")
_DEAD_PANEL_KEYS = ("editable", "error", "height", "minSpan", "span", "cacheTimeout", "hideTimeOverride", "transparent")
_DEAD_TARGET_KEYS = ("query", "target", "metric", "step", "intervalFactor", "interval", "hide")
_DEAD_ROW_KEYS = ("fieldConfig", "links", "maxDataPoints", "targets", "transformations")
_DEAD_VARIABLE_KEYS = ("useTags", "tagsQuery", "tagValuesQuery", "auto", "auto_min", "auto_count")


@dataclass(frozen=True, slots=True)
class Page:
    """One dashboard: who it is for, what it shows, from when."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    since: str = "now-6h"
    refresh: str = "30s"
    by_layer: bool = True
    """Whether layers and points are chosen on it."""


def render(page: Page, settings: MixinSettings) -> bytes:
    """Return a dashboard as JSON."""
    dashboard = core.Dashboard(
        title=page.title,
        description=f"{page.description} {GENERATED}",
        uid=page.uid,
        tags=[TAG],
        editable=False,
        graphTooltip=_SHARED_CROSSHAIR,
        refresh=page.refresh,
        timezone="browser",
        time=core.Time(page.since, "now"),
        schemaVersion=SCHEMA_VERSION,
        version=1,
        templating=core.Templating(variables(settings, by_layer=page.by_layer)),
        annotations=core.Annotations(events(settings)),
        links=links(),
        panels=_flow(page.rows),
    )
    return (json.dumps(finalize(dashboard), indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def finalize(dashboard: core.Dashboard) -> Json:
    """Return a dashboard as plain data: keys that Grafana has retired stripped, every panel numbered.

    A null is left out as well, for Grafana reads an absent key as its own default; only a threshold's lowest step and
    the dashboard's own id are null on purpose.
    """
    data: Json = json.loads(json.dumps(dashboard.to_json_data(), cls=DashboardEncoder))
    _strip(data, _DEAD_DASHBOARD_KEYS)
    data["timepicker"] = {"refresh_intervals": data["timepicker"]["refresh_intervals"]}
    for variable in data["templating"]["list"]:
        _strip(variable, _DEAD_VARIABLE_KEYS)
        if variable["current"]["value"] is None:
            variable["current"] = {}
    for number, panel in enumerate(_every(data["panels"]), start=1):
        panel["id"] = number
        _strip(panel, _DEAD_PANEL_KEYS + (_DEAD_ROW_KEYS if panel["type"] == "row" else ()))
        for asked in panel.get("targets", ()):
            _strip(asked, _DEAD_TARGET_KEYS)
            asked["range"] = not asked["instant"]
            asked["editorMode"] = "code"
    data["id"] = None
    return data


def _every(panels: list[Json]) -> Iterator[Json]:
    """Yield panels and those inside collapsed rows."""
    for panel in panels:
        yield panel
        yield from panel.get("panels", ())


def _strip(data: dict[str, Any], dead: tuple[str, ...]) -> None:
    for key in [key for key, value in data.items() if key in dead or value is None]:
        del data[key]


def _flow(rows: tuple[Row, ...]) -> list[core.Panel]:
    """Return the panels in their places, one row below the other; a collapsed row holds its panels and takes one line."""
    placed: list[core.Panel] = []
    top = 0
    for row in rows:
        heading = core.RowPanel(
            title=row.title,
            gridPos=core.GridPos(h=1, w=_WIDTH, x=0, y=top),
            repeat=core.Repeat(variable=row.repeat),
            collapsed=row.collapsed,
        )
        bottom = _place(row, top + 1)
        if row.collapsed:
            heading.panels = list(row.panels)
            placed.append(heading)
        else:
            placed += [heading, *row.panels]
        top = top + 1 if row.collapsed else bottom
    return placed


def _place(row: Row, top: int) -> int:
    """Place a row's panels from left to right, lines of the grid filled one after the other, and return where they end."""
    left, height = 0, 0
    for panel in row.panels:
        if left + panel.gridPos.w > _WIDTH:
            top, left, height = top + height, 0, 0
        panel.gridPos.x, panel.gridPos.y = left, top
        left, height = left + panel.gridPos.w, max(height, panel.gridPos.h)
    return top + height
