"""Panels as Grafana 10 and later read them, in grafanalib's object model.

grafanalib's own panel classes write models of Grafana 9 and earlier (its heatmap is that of the retired Angular
plugin, its bar gauge that of Grafana 6, its axes take whole numbers only), so each kind we use has a small class here
that fills in today's `options` and `fieldConfig`. What grafanalib's base class still adds is stripped in `dashboards`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from grafanalib import core

from geluwatch.mixin.queries import METRIC_PREFIX

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

GREEN, YELLOW, ORANGE, RED, PURPLE, BLUE, NEUTRAL = "green", "yellow", "orange", "red", "purple", "blue", "transparent"
TEXT = "text"
"""The colour of the page's own text: of lines that are there to compare with."""

DASHES: Json = {"fill": "dash", "dash": [6, 6]}
LINE_AT_THRESHOLD: Json = {"thresholdsStyle": {"mode": "line"}}

_METRIC = re.compile(rf"(?:\b[a-z_]+:)?\b{METRIC_PREFIX}\w+(?::\w+)?|\bALERTS(?:_FOR_STATE)?\b")
_TABLE_LEGEND: Json = {"displayMode": "table", "placement": "bottom", "showLegend": True}
HIGHEST_FIRST: Json = {"legend": {**_TABLE_LEGEND, "calcs": ["lastNotNull", "max"], "sortBy": "Max", "sortDesc": True}}
LOWEST_FIRST: Json = {"legend": {**_TABLE_LEGEND, "calcs": ["lastNotNull", "min"], "sortBy": "Min", "sortDesc": False}}
"""Options of lines of which the worst is the highest, or the lowest: a legend shows a few, and those are read."""

_LIST_LEGEND: Json = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
_ONE: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def target(expr: str, legend: str, *, instant: bool = False, form: str = "time_series") -> core.Target:
    """Return one query of a panel; panels give their queries the letters A, B, C."""
    return core.Target(expr=expr, legendFormat=legend, instant=instant, format=form, datasource=DATASOURCE)


def cells(expr: str) -> core.Target:
    """Return one query of a table."""
    return target(expr, "", instant=True, form="table")


def steps(first: str, *above: tuple[float, str]) -> Json:
    """Return thresholds: the first colour below all values, then (value, colour) upwards."""
    return {"mode": "absolute", "steps": [{"color": first, "value": None}, *({"color": c, "value": v} for v, c in above)]}


def judged(*above: tuple[float, str]) -> Json:
    """Return thresholds of what is never negative: no colour without a reading, green from zero, then (value, colour) upwards."""
    return steps(NEUTRAL, (0, GREEN), *above)


def override(matcher: str, pattern: str, **properties: object) -> Json:
    """Return settings for the fields that a matcher ("byName", "byRegexp") picks; `__` in a name stands for a dot."""
    listed = [{"id": name.replace("__", "."), "value": value} for name, value in properties.items()]
    return {"matcher": {"id": matcher, "options": pattern}, "properties": listed}


def painted(pattern: str, colour: str, **properties: object) -> Json:
    """Return the settings that give the series of a pattern one colour, whatever else is drawn."""
    return override("byRegexp", pattern, color={"mode": "fixed", "fixedColor": colour}, **properties)


def dashed(pattern: str, colour: str = ORANGE) -> Json:
    """Return the settings that draw the series of a pattern, which are limits, as dashes, and leave them out of the legend."""
    unlisted = {"legend": True, "tooltip": False, "viz": False}
    return painted(pattern, colour, custom__lineStyle=DASHES, custom__lineWidth=2, custom__hideFrom=unlisted)


EMPTY_CELLS = override("byRegexp", ".*", noValue="-")
"""What an empty cell of a table says; without it, what the whole table says when it has no row."""


def per_second(what: str) -> str:
    """Return the unit of what is counted by the second, which Grafana shortens to thousands and millions."""
    return f"count:{what}/s"


def texts(words: Mapping[int, tuple[str, str]]) -> list[Json]:
    """Return the mappings that show numbers as words in colours."""
    return [{"type": "value", "options": {str(value): {"text": text, "color": colour} for value, (text, colour) in words.items()}}]


def columns(hide: Sequence[str] = (), rename: Mapping[str, str] | None = None, order: Sequence[str] = ()) -> Json:
    """Return the transformation that hides, renames and orders columns of a table; an order names columns as they come."""
    options: Json = {"excludeByName": dict.fromkeys(hide, True), "renameByName": dict(rename or {})}
    return {"id": "organize", "options": {**options, "indexByName": {name: place for place, name in enumerate(order)}}}


class Panel(core.Panel):  # type: ignore[misc]  # grafanalib ships no types
    """A panel of a given kind and size, whose description names the metrics it reads."""

    kind: ClassVar[str]
    colour: ClassVar[str] = "thresholds"
    """How values get their colours; Grafana's own default depends on the kind of panel, and has changed."""
    always: ClassVar[Sequence[Json]] = ()
    """Settings of fields that every panel of the kind needs; a panel's own come after them."""
    most: ClassVar[int | None] = None
    """How many values of a series are asked for at most; as many as the panel has pixels if not given."""
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    custom: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __init__(
        self,
        title: str,
        description: str,
        targets: Sequence[core.Target],
        *,
        size: tuple[int, int],
        unit: str = "short",
        field: Mapping[str, Any] | None = None,
        overrides: Sequence[Json] = (),
        options: Mapping[str, Any] | None = None,
        custom: Mapping[str, Any] | None = None,
        transformations: Sequence[Json] = (),
        links: Sequence[Json] = (),
    ) -> None:
        for letter, asked in zip("ABCDEFGHIJ", targets, strict=False):
            asked.refId = letter
        super().__init__(
            title=title,
            description=f"{description} {_metrics(targets)}",
            targets=list(targets),
            dataSource=DATASOURCE,
            gridPos=core.GridPos(w=size[0], h=size[1], x=0, y=0),
            transformations=list(transformations),
            links=list(links),
            maxDataPoints=self.most,
        )
        self._options = {**self.options, **(options or {})}
        defaults = {
            "color": {"mode": self.colour},
            "thresholds": steps(GREEN),
            "unit": unit,
            **(field or {}),
            "custom": {**self.custom, **(custom or {})},
        }
        self._field_config = {"defaults": defaults, "overrides": [*self.always, *overrides]}

    def to_json_data(self) -> Json:
        """Return the panel for grafanalib's encoder."""
        written: Json = self.panel_json({"type": self.kind, "options": self._options})
        return {**written, "fieldConfig": self._field_config}


class TimeSeries(Panel):
    """Lines over time."""

    kind = "timeseries"
    colour = "palette-classic"
    options: ClassVar[Mapping[str, Any]] = {**HIGHEST_FIRST, "tooltip": {"mode": "multi", "sort": "desc"}}
    custom: ClassVar[Mapping[str, Any]] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 0, "showPoints": "auto", "spanNulls": False}


class Trend(Panel):
    """Lines over a number instead of time, which is the field that `on` names; drawn by Grafana 10 and later."""

    kind = "trend"
    colour = "palette-classic"
    options: ClassVar[Mapping[str, Any]] = {"legend": _LIST_LEGEND, "tooltip": {"mode": "multi", "sort": "none"}}
    custom: ClassVar[Mapping[str, Any]] = {"drawStyle": "line", "lineWidth": 2, "fillOpacity": 0, "showPoints": "never", "spanNulls": True}


class Stat(Panel):
    """Tiles that judge: one for each series, or one, in the colour of the verdict."""

    kind = "stat"
    options: ClassVar[Mapping[str, Any]] = {
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "center",
        "orientation": "auto",
        "reduceOptions": _ONE,
        "textMode": "auto",
    }


class Figure(Stat):
    """Tiles that tell and do not judge, so they have no colour."""

    options: ClassVar[Mapping[str, Any]] = {**Stat.options, "colorMode": "none"}


class Bars(Panel):
    """One horizontal bar for each series or bucket; with `form="heatmap"` Grafana turns cumulative buckets into shares."""

    kind = "bargauge"
    options: ClassVar[Mapping[str, Any]] = {
        "displayMode": "basic",
        "orientation": "horizontal",
        "reduceOptions": _ONE,
        "showUnfilled": True,
        "valueMode": "color",
        "minVizHeight": 8,
        "minVizWidth": 8,
    }


class Table(Panel):
    """One row for each series."""

    kind = "table"
    # Labels are text: as a number the version 1.10 would be 1.1.
    always = (override("byType", "string", unit="string"),)
    options: ClassVar[Mapping[str, Any]] = {"showHeader": True, "cellHeight": "sm"}
    custom: ClassVar[Mapping[str, Any]] = {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False}


class StateTimeline(Panel):
    """A bar for each series, in the colour of its state, as long as the state lasted."""

    kind = "state-timeline"
    options: ClassVar[Mapping[str, Any]] = {
        "alignValue": "left",
        "legend": {**_LIST_LEGEND, "showLegend": False},
        "mergeValues": True,
        "rowHeight": 0.9,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom: ClassVar[Mapping[str, Any]] = {"fillOpacity": 80, "lineWidth": 0, "spanNulls": False}


class StatusHistory(Panel):
    """A row of cells for each series, each in the colour of its value; Grafana draws none that are narrower than two pixels."""

    kind = "status-history"
    most = 120
    options: ClassVar[Mapping[str, Any]] = {
        "colWidth": 0.95,
        "legend": {**_LIST_LEGEND, "showLegend": False},
        "rowHeight": 0.9,
        "showValue": "never",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom: ClassVar[Mapping[str, Any]] = {"fillOpacity": 80, "lineWidth": 0}


class Heatmap(Panel):
    """Buckets over time, as Prometheus delivers them: nothing is calculated, and negative edges keep their place."""

    kind = "heatmap"
    options: ClassVar[Mapping[str, Any]] = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange", "reverse": False},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "none"},
    }
    custom: ClassVar[Mapping[str, Any]] = {
        "hideFrom": {"legend": False, "tooltip": False, "viz": False},
        "scaleDistribution": {"type": "linear"},
    }


def _metrics(targets: Sequence[core.Target]) -> str:
    found = dict.fromkeys(name for asked in targets for name in _METRIC.findall(asked.expr))
    return f"Metrics: {', '.join(f'`{name}`' for name in found)}."
