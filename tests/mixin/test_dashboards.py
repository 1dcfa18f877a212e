"""Every dashboard obeys the rules that Grafana's dashboard linter and import would hold it to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import promql_parser
import pytest

from geluwatch.mixin.dashboards import dashboards as render
from geluwatch.mixin.links import AGENTS, DASHBOARDS, DEBUG, EXECUTIVE
from geluwatch.mixin.settings import MixinSettings

Json = dict[str, Any]
PanelsOf = Callable[[Json], list[Json]]

UNITS = {"none", "short", "locale", "string", "percentunit", "s", "bytes"}
COUNTED = r"count:[a-z]*/s|count:days"
MODERN_PANELS = {"timeseries", "stat", "bargauge", "table", "heatmap", "state-timeline", "status-history", "trend"}
RETIRED_KEYS = {
    "hideControls",
    "rows",
    "sharedCrosshair",
    "style",
    "span",
    "minSpan",
    "height",
    "error",
    "metric",
    "target",
    "step",
    "intervalFactor",
}
WHOLE_COUNTERS = {"Passes with NaN or Inf", "First layer with NaN or Inf", "Passes out of memory"}
"""Panels that read counters as they are, because a counter born above zero has no increase and must still be seen."""

CALLS = {
    "rate",
    "increase",
    "present_over_time",
    "histogram_quantile",
    "time",
    "vector",
    "sort_desc",
    "sqrt",
    "clamp_max",
    "clamp_min",
    "label_replace",
    "count_over_time",
}
CHOSEN = ["cluster", "namespace", "job", "instance", "model", "version", "region", "shard"]
OPTIONAL = {"cluster", "namespace", "model", "version", "region", "shard"}
"""Variables by labels that some of the series lack."""

METRIC = r"(?:\b[a-z_]+:)?\bgeluwatch_\w+(?::\w+)?|\bALERTS(?:_FOR_STATE)?\b"


@pytest.fixture(params=DASHBOARDS)
def dashboard(request: pytest.FixtureRequest, dashboards: dict[str, Json]) -> Json:
    """Return each dashboard."""
    return dashboards[request.param]


@pytest.fixture
def panels(dashboard: Json, panels_of: PanelsOf) -> list[Json]:
    """Return the panels that show something."""
    return panels_of(dashboard)


@pytest.fixture
def variables(dashboard: Json) -> dict[str, Json]:
    """Return the variables by name."""
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def test_every_dashboard_is_rendered_under_its_uid(dashboards: dict[str, Json]) -> None:
    """There are as many dashboards as links name, each with the uid of its file and a title of its own."""
    assert list(DASHBOARDS) == [dashboard["uid"] for dashboard in dashboards.values()]
    assert len(DASHBOARDS) == len({dashboard["title"] for dashboard in dashboards.values()})
    assert set(DASHBOARDS) == set(render(MixinSettings()))


def test_the_dashboard_is_described_as_grafana_10_to_13_import_it(dashboard: Json) -> None:
    """The schema is recent enough for the shared crosshair to live, and the id is left to Grafana."""
    expected = {"schemaVersion": 39, "id": None, "editable": False, "graphTooltip": 1, "tags": ["geluwatch"]}
    assert expected == {key: dashboard[key] for key in expected}


def test_nothing_that_grafana_has_retired_is_left(dashboard: Json) -> None:
    """No key of Grafana 5 to 9 that grafanalib still writes has survived, at any depth."""

    def keys(value: Any) -> set[str]:
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return set(value if isinstance(value, dict) else ()).union(*(keys(child) for child in children))

    assert set() == (keys(dashboard["panels"]) | keys(dashboard["templating"]) | set(dashboard)) & RETIRED_KEYS


def test_panels_are_of_kinds_that_grafana_still_draws(panels: list[Json]) -> None:
    """No panel is of a kind that died with Angular, and each holds the settings its kind needs."""
    assert set() == {panel["type"] for panel in panels} - MODERN_PANELS
    assert all(panel["options"] for panel in panels)


def test_panels_are_numbered(dashboard: Json) -> None:
    """Every panel has an id of its own, those inside collapsed rows included."""
    ids = [panel["id"] for shown in dashboard["panels"] for panel in (shown, *shown.get("panels", ()))]
    assert list(range(1, len(ids) + 1)) == ids


def test_panels_do_not_overlap(dashboard: Json) -> None:
    """Every panel lies on cells of the grid that no other covers; those of a collapsed row right below it, where they open."""
    tops = [dashboard["panels"], *([row, *row["panels"]] for row in dashboard["panels"] if row.get("panels"))]
    for together in tops:
        cells: list[tuple[int, int]] = []
        for place in (panel["gridPos"] for panel in together):
            assert place["x"] + place["w"] <= 24
            cells += [(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])]
        assert len(cells) == len(set(cells))
        assert together[0]["gridPos"]["y"] + 1 == min(panel["gridPos"]["y"] for panel in together[1:])


def test_collapsed_rows_hold_their_panels_and_open_rows_none(dashboard: Json) -> None:
    """Grafana looks for a collapsed row's panels inside it, and for an open row's after it."""
    rows = [panel for panel in dashboard["panels"] if panel["type"] == "row"]
    assert all(row["collapsed"] is bool(row["panels"]) for row in rows)
    assert "row" == dashboard["panels"][0]["type"]
    assert rows[0]["collapsed"] is False


def test_panels_have_title_description_and_unit(panels: list[Json]) -> None:
    """Every panel says what it shows and names the metrics it reads, and has a unit that Grafana knows."""
    for panel in panels:
        read = re.findall(METRIC, " ".join(target["expr"] for target in panel["targets"]))
        listed = ", ".join(f"`{name}`" for name in dict.fromkeys(read))
        assert panel["description"].endswith(f". Metrics: {listed}."), panel["title"]
        assert panel["title"], panel["id"]
        units = [entry["value"] for item in panel["fieldConfig"]["overrides"] for entry in item["properties"] if entry["id"] == "unit"]
        named = {unit for unit in (panel["fieldConfig"]["defaults"]["unit"], *units) if not re.fullmatch(COUNTED, unit)}
        assert named <= UNITS | {"dateTimeFromNow"}, panel["title"]


def test_a_title_stands_for_one_panel(dashboard: Json, panels: list[Json]) -> None:
    """No two panels of a dashboard have the same title."""
    titles = [panel["title"] for panel in panels]
    assert sorted(set(titles)) == sorted(titles), dashboard["uid"]


def test_the_same_title_shows_the_same_on_every_dashboard(dashboards: dict[str, Json], panels_of: PanelsOf) -> None:
    """A panel that stands on several dashboards asks the same queries on each."""
    shown: dict[str, set[tuple[str, ...]]] = {}
    for dashboard in dashboards.values():
        for panel in panels_of(dashboard):
            shown.setdefault(panel["title"], set()).add(tuple(target["expr"] for target in panel["targets"]))
    assert {} == {title: found for title, found in shown.items() if len(found) > 1}


def test_every_query_goes_to_the_chosen_data_source(dashboard: Json, panels: list[Json]) -> None:
    """Panels, queries, annotations and variables all name the data source by its variable."""
    expected = {"type": "prometheus", "uid": "${datasource}"}
    asking = [*panels, *(target for panel in panels for target in panel["targets"]), *dashboard["annotations"]["list"]]
    asking += [variable for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    assert all(expected == item["datasource"] for item in asking)


def test_queries_have_letters_of_their_own_and_are_range_or_instant(panels: list[Json]) -> None:
    """The queries of a panel are told apart, and each is asked in one way."""
    for panel in panels:
        assert list("ABCDEFGHIJ")[: len(panel["targets"])] == [target["refId"] for target in panel["targets"]], panel["title"]
        assert all(target["instant"] is not target["range"] for target in panel["targets"]), panel["title"]
        assert panel["targets"], panel["title"]


def test_variables_are_chained_from_left_to_right(dashboard: Json, variables: dict[str, Json]) -> None:
    """Each variable offers what the ones before it leave, and is asked again when the time range changes."""
    by_layer = [] if dashboard["uid"] in {EXECUTIVE, AGENTS} else ["layer", "point"]
    assert ["datasource", *CHOSEN, *by_layer, "agent"] == list(variables)
    for place, name in enumerate([*CHOSEN, *by_layer[:1]]):
        assert set(CHOSEN[:place]) == set(re.findall(r"\$(\w+)", variables[name]["query"])), name
        assert 2 == variables[name]["refresh"], name


def test_variables_take_many_values_or_all(variables: dict[str, Json]) -> None:
    """What people choose by has a label like its name, takes many values, and starts with all; what may be absent matches nothing too."""
    for name in variables.keys() - {"datasource", "agent"}:
        variable = variables[name]
        assert name.title() == variable["label"]
        assert (True, True, ".*" if name in OPTIONAL else ".+") == (variable["multi"], variable["includeAll"], variable["allValue"]), name
        assert ["$__all"] == variable["current"]["value"], name
    assert ("datasource", "prometheus", "Data source") == tuple(variables["datasource"][key] for key in ("type", "query", "label"))


def test_links_name_only_variables_that_are_there(dashboard: Json, variables: dict[str, Json]) -> None:
    """No data link refers to a variable that its dashboard lacks, and drill-downs lead to a dashboard that exists."""
    text = str(dashboard)
    assert set(re.findall(r"\$\{(\w+):queryparam\}", text)) <= set(variables)
    assert {DEBUG} == set(re.findall(r"/d/([\w-]+)\?", text))
    assert set(re.findall(r"\$\{(\w+)\}", text)) <= {*variables, "__url_time_range"}


def test_dashboards_link_to_each_other_with_what_was_chosen(dashboard: Json) -> None:
    """The links at the top lead to all dashboards of the tag and keep variables and time range."""
    (link,) = (link for link in dashboard["links"] if link["type"] == "dashboards")
    assert (["geluwatch"], True, True) == (link["tags"], link["includeVars"], link["keepTime"])


def test_every_selector_is_limited_to_what_was_chosen(panels: list[Json]) -> None:
    """Every series is chosen by all variables whose labels it has: those of pods by all, those of models by model."""
    for panel in panels:
        for target in panel["targets"]:
            for name, inside in re.findall(rf"({METRIC})(?:\{{([^}}]*)\}})?", target["expr"]):
                labels = re.findall(r'(\w+)=~"\$\w+\|?"', inside)
                if "ALERTS" in name:
                    wanted = {"cluster", "job", "model", "region"}
                elif ":" in name:
                    wanted = (
                        {"cluster", "model", "region"}
                        if name.endswith(":stable")
                        else {"cluster", "job", "model", "model_version", "region"}
                    )
                else:
                    wanted = {"cluster", "job", "instance", "model", "model_version", "region", "shard"}
                assert wanted <= set(labels), (panel["title"], name)


def test_rates_span_the_rate_interval(panels: list[Json]) -> None:
    """A rate over time is taken over $__rate_interval, which always holds enough scrapes."""
    for panel in panels:
        for target in panel["targets"]:
            spans = re.findall(r"rate\([^\[]*\[([^\]]*)\]", target["expr"])
            assert set(spans) <= {"$__rate_interval"}, panel["title"]


def test_counters_are_read_as_rates_or_increases(queries: list[Any], nodes: Callable[[str], list[Any]]) -> None:
    """A counter stands under rate or increase, save in the panels that must see what it was born with."""
    offenders = set()
    for query in queries:
        if query.source.startswith("panel "):
            tree = nodes(query.expr)
            ranged = [node.vector_selector for node in tree if isinstance(node, promql_parser.MatrixSelector)]
            bare = [
                node for node in tree if isinstance(node, promql_parser.VectorSelector) and str(node.name).endswith(("_total", "_bucket"))
            ]
            calls = {node.func.name for node in tree if isinstance(node, promql_parser.Call)}
            assert calls <= CALLS, query
            if len(bare) > sum(str(node.name).endswith(("_total", "_bucket")) for node in ranged):
                offenders.add(query.source.removeprefix("panel "))
    assert WHOLE_COUNTERS == offenders


def test_denominators_are_never_zero(queries: list[Any], nodes: Callable[[str], list[Any]]) -> None:
    """Whatever a dashboard or a runbook divides by is a number, is filtered to be above zero, or is what an objective below 1 allows."""
    for query in (query for query in queries if query.source.startswith(("panel ", "runbook "))):
        for node in nodes(query.expr):
            if isinstance(node, promql_parser.BinaryExpr) and str(node.op) == "/":
                divisor = node.rhs.prettify()
                assert re.fullmatch(
                    r"[\d.e+]+|\((?s:.*)>\s+0\s*\)|\((?s:.*)>=\s+\d+ / \d+\s*\)|\(1 - \w+:geluwatch_objective:ratio\)", divisor
                ), query


def test_a_selector_limits_every_dashboard() -> None:
    """With a selector every series of agents is limited by it, in panels, annotations and variables."""
    for text in render(MixinSettings(selector='team="eu"')).values():
        selectors = re.findall(r"(?<![:\w])geluwatch_\w+\{([^}]*)\}", text.decode())
        assert len(selectors) > 20
        assert all(selector.startswith('team=\\"eu\\"') for selector in selectors)
