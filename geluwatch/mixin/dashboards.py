"""The overview dashboard: variables, annotations and links around the rows of `overview`, as JSON for Grafana 10 to 13."""

from __future__ import annotations

import json
from typing import Any

from grafanalib import core
from grafanalib._gen import DashboardEncoder

from geluwatch import catalog
from geluwatch.mixin.links import ONCALL
from geluwatch.mixin.overview import rows
from geluwatch.mixin.overview.parts import FIRING, Row, where
from geluwatch.mixin.panels import DATASOURCE, Json
from geluwatch.mixin.queries import number, series
from geluwatch.mixin.rulefile import GENERATED
from geluwatch.mixin.settings import MixinSettings

SCHEMA_VERSION = 39
"""That of Grafana 10.4 and 11; later ones migrate it, and below it the shared crosshair would be lost."""

_WIDTH = 24
_RELOAD_ON_TIME_CHANGE = 2
_HIDDEN = 2
_SORT_NUMERICALLY = 3
_SHARED_CROSSHAIR = 1

_DEAD_DASHBOARD_KEYS = ("__inputs", "gnetId", "hideControls", "rows", "sharedCrosshair", "style")
_DEAD_PANEL_KEYS = ("editable", "error", "height", "minSpan", "span", "cacheTimeout", "hideTimeOverride", "transparent")
_DEAD_TARGET_KEYS = ("query", "target", "metric", "step", "intervalFactor", "interval", "hide")
_DEAD_ROW_KEYS = ("fieldConfig", "links", "maxDataPoints", "targets", "transformations")
_DEAD_VARIABLE_KEYS = ("useTags", "tagsQuery", "tagValuesQuery", "auto", "auto_min", "auto_count")


def overview(settings: MixinSettings) -> bytes:
    """Return the overview dashboard as JSON."""
    dashboard = core.Dashboard(
        title="geluwatch overview",
        description=f"NaN, Inf and drift at the GELU activations of running models. {GENERATED}",
        uid=ONCALL,
        tags=["geluwatch"],
        editable=False,
        graphTooltip=_SHARED_CROSSHAIR,
        refresh="30s",
        timezone="browser",
        time=core.Time("now-6h", "now"),
        schemaVersion=SCHEMA_VERSION,
        version=1,
        templating=core.Templating(_variables(settings)),
        annotations=core.Annotations(_annotations(settings)),
        links=_links(),
        panels=_flow(rows(settings)),
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
    for number_, panel in enumerate(data["panels"], start=1):
        panel["id"] = number_
        _strip(panel, _DEAD_PANEL_KEYS + (_DEAD_ROW_KEYS if panel["type"] == "row" else ()))
        for asked in panel.get("targets", ()):
            _strip(asked, _DEAD_TARGET_KEYS)
            asked["range"] = not asked["instant"]
            asked["editorMode"] = "code"
    data["id"] = None
    return data


def _strip(data: dict[str, Any], dead: tuple[str, ...]) -> None:
    for key in [key for key, value in data.items() if key in dead or value is None]:
        del data[key]


def _flow(listed: tuple[Row, ...]) -> list[core.Panel]:
    """Return the panels in their places: from left to right, rows of the grid filled one after the other."""
    placed: list[core.Panel] = []
    top = 0
    for row in listed:
        repeat = core.Repeat(variable=row.repeat)
        placed.append(core.RowPanel(title=row.title, gridPos=core.GridPos(h=1, w=_WIDTH, x=0, y=top), repeat=repeat))
        top, left, height = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.gridPos.w > _WIDTH:
                top, left, height = top + height, 0, 0
            panel.gridPos.x, panel.gridPos.y = left, top
            left, height = left + panel.gridPos.w, max(height, panel.gridPos.h)
            placed.append(panel)
        top += height
    return placed


def _variables(settings: MixinSettings) -> list[core.Template]:
    info, index = catalog.BUILD_INFO, catalog.LAYER_INDEX
    job, instance = 'job=~"$job"', 'instance=~"$instance"'
    return [
        core.Template(name="datasource", label="Data source", type="datasource", query="prometheus", refresh=1),
        _choice("job", series(info, settings.selector)),
        _choice("instance", series(info, settings.selector, job)),
        _choice("model", series(info, settings.selector, job, instance)),
        _choice("layer", series(index, where(settings))),
        _points(),
        # Not for people: the one agent whose own listener the links to runbooks open.
        _variable("agent", f"label_values({series(info, where(settings))}, instance)", hide=_HIDDEN),
    ]


def _choice(name: str, selector: str) -> core.Template:
    return _all(_variable(name, f"label_values({selector}, {name})", multi=True, includeAll=True, allValue=".+"))


def _variable(name: str, query: str, **more: object) -> core.Template:
    return core.Template(
        name=name,
        label=name.title(),
        dataSource=DATASOURCE,
        query=query,
        refresh=_RELOAD_ON_TIME_CHANGE,
        sort=_SORT_NUMERICALLY,
        **more,
    )


def _points() -> core.Template:
    query = ",".join(catalog.EDGES)
    return _all(core.Template(name="point", label="Point", type="custom", query=query, multi=True, includeAll=True, allValue=".+"))


def _all(variable: core.Template) -> core.Template:
    variable._current = {"selected": True, "text": ["All"], "value": ["$__all"]}  # noqa: SLF001 - grafanalib has no other way
    return variable


def _annotations(settings: MixinSettings) -> list[Json]:
    models, baselines = ("model", "model_version"), ("model", "baseline")
    selected = where(settings)
    new_model = _appeared(series(catalog.BUILD_INFO, selected), *models)
    new_baseline = _appeared(series(catalog.BASELINE_INFO, selected), *baselines)
    return [
        _annotation("Alerts", FIRING, "red", "{{alertname}}", "{{model}} {{model_version}}"),
        _annotation("Model versions", new_model, "blue", "New version", "{{model}} {{model_version}}"),
        _annotation("Baselines", new_baseline, "purple", "New baseline", "{{model}} {{baseline}}"),
    ]


def _appeared(selector: str, *labels: str) -> str:
    """Return what is there now by some labels and was not five minutes ago."""
    return f"{number(selector, *labels)} unless {number(f'{selector} offset 5m', *labels)}"


def _annotation(name: str, expr: str, colour: str, title: str, text: str) -> Json:
    return {
        "datasource": DATASOURCE,
        "enable": True,
        "expr": expr,
        "hide": False,
        "iconColor": colour,
        "name": name,
        "step": "1m",
        "tagKeys": "job",
        "textFormat": text,
        "titleFormat": title,
    }


def _links() -> list[core.DashboardLink]:
    return [
        core.DashboardLink(title="geluwatch", type="dashboards", tags=["geluwatch"], asDropdown=True, includeVars=True, keepTime=True),
        core.DashboardLink(title="Live page", type="link", uri="http://${agent}/", icon="external link", targetBlank=True, keepTime=False),
    ]
