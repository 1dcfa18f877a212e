"""What stands around the panels of every dashboard: variables to choose by, annotations, links."""

from __future__ import annotations

from grafanalib import core

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import CHOSEN, firing, matching, where
from geluwatch.mixin.panels import BLUE, DATASOURCE, PURPLE, RED, YELLOW, Json
from geluwatch.mixin.queries import GROUP, number, series
from geluwatch.mixin.settings import MixinSettings

TAG = "geluwatch"

_OPTIONAL = ("cluster", "namespace", "model", "version", "region", "shard")
"""What some series lack: all of them are chosen by a pattern that matches nothing as well."""

_RELOAD_ON_TIME_CHANGE = 2
_HIDDEN = 2
_SORT_NUMERICALLY = 3


def variables(settings: MixinSettings, *, by_layer: bool) -> list[core.Template]:
    """Return the variables, each of which offers what those before it leave."""
    agent = f"label_values({series(catalog.BUILD_INFO, where(settings))}, instance)"
    return [
        core.Template(name="datasource", label="Data source", type="datasource", query="prometheus", refresh=1),
        *(_choice(settings, name) for name in CHOSEN),
        *((_layers(settings), _points()) if by_layer else ()),
        # Not for people: the one agent whose own listener the links to runbooks open.
        _variable("agent", agent, hide=_HIDDEN),
    ]


def _choice(settings: MixinSettings, name: str) -> core.Template:
    before = list(CHOSEN)[: list(CHOSEN).index(name)]
    matchers = ",".join(part for part in (settings.selector, matching(*before)) if part)
    return _many(name, f"label_values({series(catalog.BUILD_INFO, matchers)}, {CHOSEN[name]})")


def _layers(settings: MixinSettings) -> core.Template:
    return _many("layer", f"label_values({series(catalog.LAYER_INDEX, where(settings))}, layer)")


def _points() -> core.Template:
    query = ",".join(catalog.EDGES)
    return _all(core.Template(name="point", label="Point", type="custom", query=query, multi=True, includeAll=True, allValue=".+"))


def _many(name: str, query: str) -> core.Template:
    return _all(_variable(name, query, multi=True, includeAll=True, allValue=".*" if name in _OPTIONAL else ".+"))


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


def _all(variable: core.Template) -> core.Template:
    variable._current = {"selected": True, "text": ["All"], "value": ["$__all"]}  # noqa: SLF001 - grafanalib has no other way
    return variable


def events(settings: MixinSettings) -> list[Json]:
    """Return what is marked on the time axis of every panel."""
    selected, subject = where(settings), "{{model}} {{model_version}} {{region}}"
    versions = _appeared(series(catalog.BUILD_INFO, selected), settings, *GROUP)
    baselines = _appeared(series(catalog.BASELINE_INFO, selected), settings, *GROUP, "baseline")
    return [
        _annotation("Alerts", firing(settings), RED, "{{alertname}}", subject),
        _annotation("Rollouts", firing(settings, "notice"), YELLOW, "Rollout", subject),
        _annotation("Model versions", versions, BLUE, "New version", subject),
        _annotation("Baselines", baselines, PURPLE, "New baseline", "{{baseline}} of {{model}} {{model_version}}"),
    ]


def _appeared(selector: str, settings: MixinSettings, *labels: str) -> str:
    """Return what is there now by some labels and was not a rate window ago."""
    return f"{number(selector, *labels)} unless {number(f'{selector} offset {settings.rate_window}', *labels)}"


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


def links() -> list[core.DashboardLink]:
    """Return the links to the other dashboards, which keep what was chosen, and to an agent's own page."""
    return [
        core.DashboardLink(title=TAG, type="dashboards", tags=[TAG], asDropdown=False, includeVars=True, keepTime=True),
        core.DashboardLink(title="Live page", type="link", uri="http://${agent}/", icon="external link", targetBlank=True, keepTime=False),
    ]
