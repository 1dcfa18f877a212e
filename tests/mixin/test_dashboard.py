"""The dashboard obeys the rules that Grafana's dashboard linter and import would hold it to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import promql_parser
import pytest

from geluwatch.mixin.dashboards import overview
from geluwatch.mixin.runbooks import names
from geluwatch.mixin.settings import MixinSettings

Json = dict[str, Any]

UNITS = {"none", "short", "string", "percentunit", "cps", "s", "bytes"}
MODERN_PANELS = {"timeseries", "stat", "bargauge", "table", "heatmap"}
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
WHOLE_COUNTERS = {"Passes with NaN or Inf", "First layer with NaN or Inf"}
"""Panels that read counters as they are, because a counter born above zero has no increase and must still be seen."""


@pytest.fixture(scope="module")
def panels(dashboard: Json) -> list[Json]:
    """Return the panels that show something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def variables(dashboard: Json) -> dict[str, Json]:
    """Return the variables by name."""
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def test_the_dashboard_is_described_as_grafana_10_to_13_import_it(dashboard: Json) -> None:
    """The schema is recent enough for the shared crosshair to live, the uid is stable and the id left to Grafana."""
    expected = {"schemaVersion": 39, "uid": "geluwatch-oncall", "id": None, "editable": False, "graphTooltip": 1, "tags": ["geluwatch"]}
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


def test_panels_are_numbered_and_do_not_overlap(dashboard: Json) -> None:
    """Every panel has an id of its own and lies on cells of the grid that no other panel covers."""
    assert list(range(1, len(dashboard["panels"]) + 1)) == [panel["id"] for panel in dashboard["panels"]]
    cells: list[tuple[int, int]] = []
    for place in (panel["gridPos"] for panel in dashboard["panels"]):
        assert place["x"] + place["w"] <= 24
        cells += [(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])]
    assert len(cells) == len(set(cells))


def test_panels_have_title_description_and_unit(panels: list[Json]) -> None:
    """Every panel says what it shows and names the metrics it reads, and has a unit that Grafana knows."""
    for panel in panels:
        read = re.findall(r"\b(?:geluwatch_\w+|ALERTS)\b", " ".join(target["expr"] for target in panel["targets"]))
        listed = ", ".join(f"`{name}`" for name in dict.fromkeys(read))
        assert panel["description"].endswith(f". Metrics: {listed}."), panel["title"]
        assert panel["title"], panel["id"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]


def test_every_query_goes_to_the_chosen_data_source(dashboard: Json, panels: list[Json]) -> None:
    """Panels, queries, annotations and variables all name the data source by its variable."""
    expected = {"type": "prometheus", "uid": "${datasource}"}
    asking = [*panels, *(target for panel in panels for target in panel["targets"]), *dashboard["annotations"]["list"]]
    asking += [variable for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    assert all(expected == item["datasource"] for item in asking)


def test_queries_have_letters_of_their_own_and_are_range_or_instant(panels: list[Json]) -> None:
    """The queries of a panel are told apart, and each is asked in one way."""
    for panel in panels:
        assert list("ABCDE")[: len(panel["targets"])] == [target["refId"] for target in panel["targets"]], panel["title"]
        assert all(target["instant"] is not target["range"] for target in panel["targets"]), panel["title"]


def test_variables_are_chained_from_left_to_right(variables: dict[str, Json]) -> None:
    """Each variable offers what the ones before it leave, and is asked again when the time range changes."""
    order = ["datasource", "job", "instance", "model", "layer", "point", "agent"]
    assert order == list(variables)
    for place, name in enumerate(order[1:5], start=1):
        assert set(order[1:place]) == set(re.findall(r"\$(\w+)", variables[name]["query"])), name
        assert 2 == variables[name]["refresh"], name


def test_variables_take_many_values_or_all(variables: dict[str, Json]) -> None:
    """What people choose by has a label like its name, takes many values, and starts with all of them."""
    for name in ("job", "instance", "model", "layer", "point"):
        variable = variables[name]
        assert name.title() == variable["label"]
        assert (True, True, ".+") == (variable["multi"], variable["includeAll"], variable["allValue"]), name
        assert ["$__all"] == variable["current"]["value"], name
    assert ("datasource", "prometheus", "Data source") == tuple(variables["datasource"][key] for key in ("type", "query", "label"))


def test_every_selector_is_limited_to_job_and_instance(panels: list[Json]) -> None:
    """Every series of ours is chosen by job, instance and model; alerts, which have no instance, by job."""
    for panel in panels:
        for target in panel["targets"]:
            for name, inside in re.findall(r"\b(geluwatch_\w+|ALERTS)(?:\{([^}]*)\})?", target["expr"]):
                wanted = ["job"] if name == "ALERTS" else ["job", "instance", "model"]
                assert all(f'{label}=~"${label}"' in inside for label in wanted), panel["title"]


def test_rates_span_the_rate_interval(panels: list[Json]) -> None:
    """A rate over time is taken over $__rate_interval, which always holds enough scrapes."""
    for panel in panels:
        for target in panel["targets"]:
            spans = re.findall(r"rate\([^\[]*\[([^\]]*)\]", target["expr"])
            assert set(spans) <= {"$__rate_interval"}, panel["title"]


def test_counters_are_read_as_rates_or_increases(panels: list[Json], queries: list[Any], nodes: Callable[[str], list[Any]]) -> None:
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
            assert calls <= {
                "rate",
                "increase",
                "histogram_quantile",
                "time",
                "vector",
                "sort_desc",
                "sqrt",
                "clamp_min",
                "label_replace",
            }, query
            if len(bare) > sum(str(node.name).endswith(("_total", "_bucket")) for node in ranged):
                offenders.add(query.source.removeprefix("panel "))
    assert WHOLE_COUNTERS == offenders


def test_denominators_are_never_zero(queries: list[Any], nodes: Callable[[str], list[Any]]) -> None:
    """Whatever a dashboard or a runbook divides by is a number or is filtered to be above zero."""
    for query in queries:
        for node in nodes(query.expr):
            if isinstance(node, promql_parser.BinaryExpr) and str(node.op) == "/":
                divisor = node.rhs.prettify()
                assert re.fullmatch(r"[\d.e+]+|\((?s:.*)>\s+0\s*\)", divisor), query


def test_alarm_panels_link_to_runbooks_that_exist(panels: list[Json]) -> None:
    """Each alert's runbook is linked from some panel, and no link names a runbook that is not there."""
    urls = [link["url"] for panel in panels for link in panel["links"]]
    assert set(names()) == {url.removeprefix("http://${agent}/runbooks/") for url in urls}


def test_published_runbooks_are_linked_where_they_are() -> None:
    """With a runbook base the dashboard links there, and to no agent."""
    text = overview(MixinSettings(runbook_base="https://runbooks.example/")).decode()
    assert "https://runbooks.example/GeluwatchActivationDrift" in text
    assert "${agent}/runbooks" not in text


def test_evidence_shows_its_threshold(panels: list[Json]) -> None:
    """The evidence panel draws the line from which on it is drift."""
    panel = next(panel for panel in panels if panel["title"] == "Drift evidence by layer")
    assert {"mode": "line"} == panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]
    assert [None, 1] == [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]


def test_surprise_stands_against_both_limits(panels: list[Json]) -> None:
    """The surprise panel draws every tier's limit as a dashed line of its own."""
    panel = next(panel for panel in panels if panel["title"] == "Surprise and limits")
    surprise, limit = (target["legendFormat"] for target in panel["targets"])
    (dashed,) = panel["fieldConfig"]["overrides"]
    assert "custom.lineStyle" in {entry["id"] for entry in dashed["properties"]}
    assert (None, True) == (re.fullmatch(dashed["matcher"]["options"], surprise), bool(re.fullmatch(dashed["matcher"]["options"], limit)))
    assert "{{tier}}" in limit


def test_where_drift_began_is_told_with_its_scope(panels: list[Json]) -> None:
    """One tile names the first layer and whether traffic or model changed, and says so where there is no drift."""
    panel = next(panel for panel in panels if panel["title"] == "Where drift began")
    assert "{{model}} {{layer}}: {{scope}}" == panel["targets"][0]["legendFormat"]
    assert "No drift" == panel["fieldConfig"]["defaults"]["noValue"]


def test_buckets_reach_grafana_as_buckets(panels: list[Json]) -> None:
    """The distribution's queries are in heatmap format by edge, and the heatmap computes nothing itself."""
    shown = [panel for panel in panels if panel["title"] in {"Activation values over time", "Live", "Baseline"}]
    assert 3 == len(shown)
    assert {("heatmap", "{{le}}")} == {(target["format"], target["legendFormat"]) for panel in shown for target in panel["targets"]}
    assert shown[0]["options"]["calculate"] is False


def test_the_distribution_is_shown_for_each_side_of_the_gelu(dashboard: Json) -> None:
    """Values before and after have other edges, so their row is repeated and never mixes them."""
    row = next(panel for panel in dashboard["panels"] if panel["type"] == "row" and "Distribution" in panel["title"])
    assert "point" == row["repeat"]


def test_a_selector_limits_the_whole_dashboard() -> None:
    """With a selector every query and variable holds it."""
    text = overview(MixinSettings(selector='cluster="eu"')).decode()
    assert "geluwatch_build_info, job" not in text
    assert text.count('{cluster=\\"eu\\"') > 60
