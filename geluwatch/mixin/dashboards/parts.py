"""What the rows share: the queries behind the dashboards' variables, groupings, legends, axes and links."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from grafanalib import core

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin import queries
from geluwatch.mixin.dashboards.recorded import Recorded
from geluwatch.mixin.links import DEBUG
from geluwatch.mixin.panels import BLUE, GREEN, ORANGE, PURPLE, RED, Json, Panel, TimeSeries, texts
from geluwatch.mixin.queries import GROUP
from geluwatch.mixin.settings import MixinSettings, Tier

RATE, RANGE = "$__rate_interval", "$__range"
LAYERS, POINT, PODS = 'layer=~"$layer"', 'point=~"$point"', 'instance=~"$instance"'
BY_LAYER = (*GROUP, "layer")
BY_POINT = (*BY_LAYER, "point")
BY_POD = (*GROUP, "instance")
OF_MODEL = "{{model}} {{model_version}} {{region}}"
OF_LAYER, OF_POINT = f"{{{{layer}}}} of {OF_MODEL}", f"{{{{layer}}}} {{{{point}}}} of {OF_MODEL}"
OF_AGENT = "{{instance}} {{model}}"

CHOSEN = {
    "cluster": "cluster",
    "namespace": "namespace",
    "job": "job",
    "instance": "instance",
    "model": "model",
    "version": "model_version",
    "region": "region",
    "shard": "shard",
}
"""The variables that every dashboard has, in order, and the label that each one chooses by."""

_RECORDED = ("cluster", "namespace", "job", "model", "version", "region")
OVER_VERSIONS = ("cluster", "namespace", "model", "region")
"""What series choose by that compare versions, which may be of different jobs."""

_ALERTED = 'cluster=~"$cluster",namespace=~"$namespace",job=~"$job|",model=~"$model|",region=~"$region|"'
"""An alert about a job has no model, one about a canary no job, one about an agent no region; those are always shown."""

FROM_ZERO: Json = {"min": 0}


def drill_down(title: str, **labels: str) -> Json:
    """Return the link to the debug dashboard for the labels of what was clicked: variable=label, the rest as chosen now."""
    kept = [f"${{{name}:queryparam}}" for name in ("datasource", *CHOSEN) if name not in labels]
    picked = [f"var-{name}={text}" for name, text in labels.items()]
    return {"title": title, "url": f"/d/{DEBUG}?{'&'.join([*kept, *picked])}&${{__url_time_range}}"}


def clicked(label: str) -> str:
    """Return what stands for a label of the series that was clicked."""
    return f"${{__field.labels.{label}}}"


ONLY_THIS_LAYER: Json = {"links": [drill_down("Only this layer", layer=clicked("layer"))]}
ONLY_THIS_POD: Json = {"links": [drill_down("Only this pod", instance=clicked("instance"))]}
ONLY_THIS_MODEL: Json = {"links": [drill_down("Only this model", model=clicked("model"), version=clicked("model_version"))]}
LAYERS_FROM_ZERO: Json = {**FROM_ZERO, **ONLY_THIS_LAYER}
PODS_FROM_ZERO: Json = {**FROM_ZERO, **ONLY_THIS_POD}


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and its panels, which flow from left to right."""

    title: str
    panels: tuple[Panel, ...]
    repeat: str | None = None
    """Variable for each value of which the row is shown once."""
    collapsed: bool = False
    """Whether it opens only on a click, and asks nothing before."""


def amounts(
    title: str,
    description: str,
    *asked: core.Target,
    unit: str,
    size: tuple[int, int] = (8, 7),
    field: Json = FROM_ZERO,
    links: Sequence[Json] = (),
) -> TimeSeries:
    """Return lines of what cannot be negative, on an axis from zero; a third of the dashboard wide unless a size is given."""
    return TimeSeries(title, description, asked, size=size, unit=unit, field=field, links=links)


def matching(*variables: str) -> str:
    """Return the matchers that some of the dashboard's variables stand for."""
    return ",".join(f'{CHOSEN[name]}=~"${name}"' for name in variables)


def where(settings: MixinSettings) -> str:
    """Return the matchers that all of the dashboard's variables stand for."""
    return ",".join(part for part in (settings.selector, matching(*CHOSEN)) if part)


def firing(settings: MixinSettings, *tiers: Tier, state: str = 'alertstate="firing"', name: str = "ALERTS") -> str:
    """Return the selector of the alerts of some tiers that fire; of all that tell somebody if none is given."""
    severities = "|".join(settings.severities[tier] for tier in tiers or ("page", "ticket"))
    inside = ",".join(part for part in ('alertname=~"Geluwatch.+"', state, f'severity=~"{severities}"', _ALERTED) if part)
    return f"{name}{{{inside}}}"


class Queries:
    """Queries limited to what the dashboard's variables select."""

    def __init__(self, settings: MixinSettings) -> None:
        self.settings = settings
        self.recorded = Recorded(settings)
        self._where = where(settings)
        self._runbooks = (settings.runbook_base or "http://${agent}/runbooks").rstrip("/")

    def gauge(self, metric: Metric, *matchers: str) -> str:
        """Return the selector of a gauge."""
        return queries.series(metric, self._where, *matchers)

    def rule(self, name: str, *matchers: str, chosen: tuple[str, ...] = _RECORDED) -> str:
        """Return the selector of a recorded series, which pods have been summed out of; `chosen` are its variables."""
        return f"{name}{{{','.join((matching(*chosen), *matchers))}}}"

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

    def stable(self, ask: Callable[..., str], metric: Metric, *more: str) -> str:
        """Return what a query finds of all pods that are no canary."""
        return f"({ask(metric, *more)} unless {self.canary(ask, metric, *more)})"

    def canary(self, ask: Callable[..., str], metric: Metric, *more: str) -> str:
        """Return what a query finds of the canary's pods."""
        return ask(metric, *more, self.settings.canary)

    def runbook(self, *names: str) -> list[Json]:
        """Return the links to runbooks: the published ones, or the copies that the agent in `$agent` serves."""
        return [{"title": f"Runbook {name}", "url": f"{self._runbooks}/Geluwatch{name}", "targetBlank": True} for name in names]

    def runbook_of(self, field: str) -> Json:
        """Return the link to the runbook that a table's field names."""
        return {"title": "Runbook", "url": f"{self._runbooks}/{field}", "targetBlank": True}


VERDICTS = ("ok", "warming", "blind", "ticket", "page")
"""From the best to the worst; the place of a verdict, from 1, is its rank."""

VERDICT_COLOURS = dict(zip(VERDICTS, (GREEN, BLUE, PURPLE, ORANGE, RED), strict=True))
VERDICT_WORDS = texts({rank: (verdict, colour) for rank, (verdict, colour) in enumerate(VERDICT_COLOURS.items(), start=1)})
"""How a rank is shown."""


def worst_verdict(gauge: Callable[..., str], *labels: str) -> str:
    """Return the rank of the worst verdict by some labels, of the agents that `gauge` selects."""
    held = (gauge(catalog.VERDICT, f'verdict="{verdict}"') for verdict in VERDICTS)
    return queries.largest("\nor\n".join(f"{rank} * {verdict}" for rank, verdict in enumerate(held, start=1)), *labels)
