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

from geluwatch.mixin import queries
from geluwatch.mixin.links import ONCALL

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
DRILL_DOWN = (
    f"/d/{ONCALL}?${{datasource:queryparam}}&${{job:queryparam}}&${{instance:queryparam}}&${{model:queryparam}}"
    "&${point:queryparam}&var-layer=${__field.labels.layer}&${__url_time_range}"
)
"""The same dashboard, for the layer of the series that was clicked."""

GREEN, ORANGE, RED, PURPLE, BLUE, NEUTRAL = "green", "orange", "red", "purple", "blue", "transparent"

_METRIC = re.compile(rf"\b(?:{queries.METRIC_PREFIX}\w+|ALERTS)\b")


def target(expr: str, legend: str, *, instant: bool = False, form: str = "time_series") -> core.Target:
    """Return one query of a panel; panels give their queries the letters A, B, C."""
    return core.Target(expr=expr, legendFormat=legend, instant=instant, format=form, datasource=DATASOURCE)


def steps(first: str, *above: tuple[float, str]) -> Json:
    """Return thresholds: the first colour below all values, then (value, colour) upwards."""
    return {"mode": "absolute", "steps": [{"color": first, "value": None}, *({"color": c, "value": v} for v, c in above)]}


def override(matcher: str, pattern: str, **properties: object) -> Json:
    """Return settings for the fields that a matcher ("byName", "byRegexp") picks; `__` in a name stands for a dot."""
    listed = [{"id": name.replace("__", "."), "value": value} for name, value in properties.items()]
    return {"matcher": {"id": matcher, "options": pattern}, "properties": listed}


def columns(hide: tuple[str, ...], rename: Mapping[str, str] | None = None) -> Json:
    """Return the transformation that hides and renames columns of a table."""
    return {"id": "organize", "options": {"excludeByName": dict.fromkeys(hide, True), "renameByName": dict(rename or {})}}


class Panel(core.Panel):  # type: ignore[misc]  # grafanalib ships no types
    """A panel of a given kind and size, whose description names the metrics it reads."""

    kind: ClassVar[str]
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
        for letter, asked in zip("ABCDEFGH", targets, strict=False):
            asked.refId = letter
        super().__init__(
            title=title,
            description=f"{description} {_metrics(targets)}",
            targets=list(targets),
            dataSource=DATASOURCE,
            gridPos=core.GridPos(w=size[0], h=size[1], x=0, y=0),
            transformations=list(transformations),
            links=list(links),
            maxDataPoints=None,
        )
        self._options = {**self.options, **(options or {})}
        defaults = {"thresholds": steps(GREEN), "unit": unit, **(field or {}), "custom": {**self.custom, **(custom or {})}}
        self._field_config = {"defaults": defaults, "overrides": list(overrides)}

    def to_json_data(self) -> Json:
        """Return the panel for grafanalib's encoder."""
        written: Json = self.panel_json({"type": self.kind, "options": self._options})
        return {**written, "fieldConfig": self._field_config}


class TimeSeries(Panel):
    """Lines over time."""

    kind = "timeseries"
    options: ClassVar[Mapping[str, Any]] = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    custom: ClassVar[Mapping[str, Any]] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 0, "showPoints": "auto", "spanNulls": False}


class Stat(Panel):
    """One tile for each series, or one tile."""

    kind = "stat"
    options: ClassVar[Mapping[str, Any]] = {
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "center",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
    }


class Bars(Panel):
    """One horizontal bar for each series or bucket; with `form="heatmap"` Grafana turns cumulative buckets into shares."""

    kind = "bargauge"
    options: ClassVar[Mapping[str, Any]] = {
        "displayMode": "basic",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showUnfilled": True,
        "valueMode": "color",
        "minVizHeight": 8,
        "minVizWidth": 8,
    }


class Table(Panel):
    """One row for each series."""

    kind = "table"
    options: ClassVar[Mapping[str, Any]] = {"showHeader": True, "cellHeight": "sm"}
    custom: ClassVar[Mapping[str, Any]] = {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False}


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
