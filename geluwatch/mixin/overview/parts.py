"""What the rows of the overview share: the queries behind the dashboard's variables, groupings, legends and axes."""

from __future__ import annotations

from dataclasses import dataclass

from grafanalib import core

from geluwatch.catalog import Metric
from geluwatch.mixin import queries
from geluwatch.mixin.panels import DRILL_DOWN, Json, Panel, TimeSeries
from geluwatch.mixin.queries import GROUP
from geluwatch.mixin.settings import MixinSettings

RATE, RANGE = "$__rate_interval", "$__range"
LAYERS, POINT = 'layer=~"$layer"', 'point=~"$point"'
BY_LAYER = (*GROUP, "layer")
BY_POINT = (*BY_LAYER, "point")
OF_MODEL, OF_LAYER, OF_POINT = "{{model}} {{model_version}}", "{{model}} {{layer}}", "{{model}} {{layer}} {{point}}"
OF_AGENT = "{{model}} {{instance}}"

FIRING = 'ALERTS{alertname=~"Geluwatch.+",alertstate="firing",job=~"$job"}'
ONLY_THIS_LAYER: Json = {"links": [{"title": "Only this layer", "url": DRILL_DOWN}]}
FROM_ZERO: Json = {"min": 0}
LAYERS_FROM_ZERO: Json = {**FROM_ZERO, **ONLY_THIS_LAYER}
DASHES: Json = {"fill": "dash", "dash": [6, 6]}


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and its panels, which flow from left to right."""

    title: str
    panels: tuple[Panel, ...]
    repeat: str | None = None
    """Variable for each value of which the row is shown once."""


def amounts(title: str, description: str, *asked: core.Target, unit: str, size: tuple[int, int] = (8, 7)) -> TimeSeries:
    """Return lines of what cannot be negative, on an axis from zero; a third of the dashboard wide unless a size is given."""
    return TimeSeries(title, description, asked, size=size, unit=unit, field=FROM_ZERO)


def where(settings: MixinSettings) -> str:
    """Return the matchers that the dashboard's variables stand for."""
    return ",".join(part for part in (settings.selector, 'job=~"$job"', 'instance=~"$instance"', 'model=~"$model"') if part)


class Queries:
    """Queries limited to what the dashboard's variables select."""

    def __init__(self, settings: MixinSettings) -> None:
        self._where = where(settings)
        self._runbooks = (settings.runbook_base or "http://${agent}/runbooks").rstrip("/")

    def gauge(self, metric: Metric, *matchers: str) -> str:
        """Return the selector of a gauge."""
        return queries.series(metric, self._where, *matchers)

    def known(self, metric: Metric, *matchers: str) -> str:
        """Return a gauge without its NaNs."""
        return queries.known(metric, self._where, *matchers)

    def of_pods(self, metric: Metric) -> str:
        """Return a gauge of the chosen layers and points, averaged over pods."""
        return queries.mean(self.known(metric, LAYERS, POINT), *BY_POINT)

    def rate(self, metric: Metric, *matchers: str) -> str:
        """Return what a counter grew by a second."""
        return f"rate({queries.series(metric, self._where, *matchers)}[{RATE}])"

    def increase(self, metric: Metric, window: str, *matchers: str) -> str:
        """Return what a counter grew by within a window."""
        return f"increase({queries.series(metric, self._where, *matchers)}[{window}])"

    def grown(self, metric: Metric) -> str:
        """Return what a counter grew by within the shown time range, what it was born with included."""
        return queries.grown(metric, RANGE, self._where)

    def or_zero(self, expression: str, metric: Metric) -> str:
        """Return zero where an expression finds nothing although there is something to look at."""
        return f"{expression} or 0 * {queries.number(self.gauge(metric))}"

    def runbook(self, name: str) -> list[Json]:
        """Return the link to a runbook: the published one, or the copy that the agent in `$agent` serves."""
        return [{"title": "Runbook", "url": f"{self._runbooks}/{name}", "targetBlank": True}]
