"""What the dashboards show: nothing that matters is missing, and what is shown is shown as it should be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from geluwatch.mixin.dashboards import dashboards as render
from geluwatch.mixin.links import DASHBOARDS, DEBUG, EXECUTIVE, FLEET, ONCALL
from geluwatch.mixin.rules import alerts, recordings
from geluwatch.mixin.runbooks import names
from geluwatch.mixin.settings import MixinSettings
from geluwatch.mixin.thresholds import Thresholds

Json = dict[str, Any]
PanelsOf = Callable[[Json], list[Json]]

RUNBOOK = "http://${agent}/runbooks/"


@pytest.fixture(scope="module")
def shown(dashboards: dict[str, Json], panels_of: PanelsOf) -> dict[str, list[Json]]:
    """Return the panels of each dashboard."""
    return {uid: panels_of(dashboard) for uid, dashboard in dashboards.items()}


def panel(panels: list[Json], title: str) -> Json:
    """Return the panel of a title."""
    return next(panel for panel in panels if panel["title"] == title)


def steps(shown: Json) -> list[float | None]:
    """Return the values of a panel's thresholds."""
    return [step["value"] for step in shown["fieldConfig"]["defaults"]["thresholds"]["steps"]]


def runbooks_of(panels: list[Json]) -> set[str]:
    """Return the runbooks that panels link to."""
    urls = {link["url"] for panel in panels for link in panel["links"]}
    return {url.removeprefix(RUNBOOK) for url in urls}


def test_panels_link_to_all_runbooks_and_to_no_other(shown: dict[str, list[Json]]) -> None:
    """Each alert's runbook is linked from some panel, and no link names a runbook that is not there."""
    assert set(names()) == set().union(*(runbooks_of(panels) for panels in shown.values()))


def test_an_alert_leads_to_a_dashboard_that_leads_to_its_runbook(shown: dict[str, list[Json]]) -> None:
    """The dashboard that an alert's link opens has a panel with that alert's runbook."""
    assert [] == [
        (alert.name, alert.dashboard) for alert in alerts(MixinSettings()) if alert.name not in runbooks_of(shown[alert.dashboard])
    ]


def test_whoever_is_woken_finds_every_page_on_one_dashboard(shown: dict[str, list[Json]]) -> None:
    """The on-call dashboard has a panel with the runbook of everything that pages."""
    assert set() == {alert.name for alert in alerts(MixinSettings()) if alert.tier == "page"} - runbooks_of(shown[ONCALL])


def test_published_runbooks_are_linked_where_they_are() -> None:
    """With a runbook base the dashboards link there, and to no agent."""
    for uid, content in render(MixinSettings(runbook_base="https://runbooks.example/")).items():
        text = content.decode()
        assert "https://runbooks.example/Geluwatch" in text, uid
        assert "${agent}/runbooks" not in text, uid


def test_the_first_screen_of_who_was_woken_says_what_fires_where_and_since_when(shown: dict[str, list[Json]]) -> None:
    """Above the fold stand the alerts with their runbooks, the verdicts now, and each model's verdict over time."""
    first = [each for each in shown[ONCALL] if each["gridPos"]["y"] < 14]
    titles = {each["title"] for each in first}
    assert {"Pages firing", "Tickets firing", "Agents by verdict", "Firing alerts", "Verdict of each model"} <= titles
    table = panel(shown[ONCALL], "Firing alerts")
    links = [
        entry["value"][0]["url"] for item in table["fieldConfig"]["overrides"] for entry in item["properties"] if entry["id"] == "links"
    ]
    assert f"{RUNBOOK}${{__value.text}}" in links
    assert any(link.startswith(f"/d/{DEBUG}?") for link in links)
    assert "ALERTS_FOR_STATE" in table["targets"][0]["expr"]


@pytest.mark.parametrize("title", ["Pages firing", "Tickets firing"])
def test_notices_are_not_counted_as_alerts(shown: dict[str, list[Json]], title: str) -> None:
    """What only keeps other alerts quiet is in no tile and no table of alerts."""
    tile, table = (panel(shown[ONCALL], name)["targets"][0]["expr"] for name in (title, "Firing alerts"))
    assert 'severity=~"critical|warning"' in table
    assert f'severity=~"{"critical" if title.startswith("Pages") else "warning"}"' in tile


def test_tiers_are_found_by_the_severities_of_the_settings() -> None:
    """Where severities have other names, tiles and tables ask for those."""
    settings = MixinSettings(severities={"page": "P1", "ticket": "P3", "notice": "P5"})
    text = render(settings)[ONCALL].decode()
    assert 'severity=~\\"P1|P3\\"' in text
    assert "critical" not in text


def test_tiles_have_a_colour_only_where_they_judge(shown: dict[str, list[Json]]) -> None:
    """A tile with a coloured background has a limit; one that only informs has none. Without a reading neither is green or red."""
    for panels in shown.values():
        for tile in (each for each in panels if each["type"] == "stat"):
            judging = len(steps(tile)) > 1 or any(
                "thresholds" == entry["id"] for item in tile["fieldConfig"]["overrides"] for entry in item["properties"]
            )
            assert judging is (tile["options"]["colorMode"] == "background"), tile["title"]
            assert tile["fieldConfig"]["defaults"]["noValue"], tile["title"]


def test_quantiles_have_fixed_colours(shown: dict[str, list[Json]]) -> None:
    """Each quantile of latency has the same colour wherever and for whatever model it is drawn."""
    colours = {
        title: {item["matcher"]["options"]: item["properties"][0]["value"]["fixedColor"] for item in found["fieldConfig"]["overrides"]}
        for title, found in (
            ("each", panel(shown[DEBUG], "Latency quantiles")),
            ("slowest", panel(shown[EXECUTIVE], "Forward latency")),
        )
    }
    assert {".* p50$": "green", ".* p95$": "orange", ".* p99$": "red"} == colours["each"]
    assert {"^slowest p50$": "green", "^slowest p99$": "red"} == colours["slowest"]


def test_a_legend_begins_with_the_worst(shown: dict[str, list[Json]]) -> None:
    """A legend of lines shows a few of many, so it is sorted by what it shows: the highest first, or the lowest where that is worse."""
    lowest = set()
    for each in (each for panels in shown.values() for each in panels if each["type"] == "timeseries"):
        legend = each["options"]["legend"]
        assert (legend["sortBy"], legend["sortDesc"], legend["calcs"][1]) in {("Max", True, "max"), ("Min", False, "min")}, each["title"]
        if not legend["sortDesc"]:
            lowest.add(each["title"])
    assert {"Accuracy", "Error budget left", "Headroom", "Time to overflow"} <= lowest


def test_limits_are_left_out_of_legends(shown: dict[str, list[Json]]) -> None:
    """A dashed limit would stand above every line in a legend that begins with the highest; the tooltip names it still."""
    found = panel(shown[EXECUTIVE], "Accuracy")["fieldConfig"]["overrides"]
    hidden = [entry["value"] for item in found for entry in item["properties"] if entry["id"] == "custom.hideFrom"]
    assert [{"legend": True, "tooltip": False, "viz": False}] == hidden


def test_a_history_of_states_asks_for_no_more_than_it_can_draw(shown: dict[str, list[Json]]) -> None:
    """Grafana draws no status history whose cells would be narrower than two pixels, and shows a message instead."""
    found = [each for panels in shown.values() for each in panels if each["type"] == "status-history"]
    assert found
    assert all(each["maxDataPoints"] <= 120 for each in found)


def test_live_and_baseline_can_be_compared_by_length(shown: dict[str, list[Json]]) -> None:
    """The bars of both sides have the same ends."""
    live, baseline = (panel(shown[DEBUG], title)["fieldConfig"]["defaults"] for title in ("Live", "Baseline"))
    assert (live["min"], live["max"]) == (baseline["min"], baseline["max"])
    assert live["max"] > 0


def test_a_heatmap_counts_passes_in_rows_of_seconds(shown: dict[str, list[Json]]) -> None:
    """What is in a cell is a number of passes, and what a row stands for is a time."""
    found = panel(shown[ONCALL], "Latency of all passes")
    assert ("short", "s") == (found["fieldConfig"]["defaults"]["unit"], found["options"]["yAxis"]["unit"])


@pytest.mark.parametrize(("uid", "title"), [(ONCALL, "Firing alerts"), (EXECUTIVE, "Time spent firing"), (FLEET, "Regions")])
def test_an_empty_cell_does_not_say_that_the_table_is_empty(shown: dict[str, list[Json]], uid: str, title: str) -> None:
    """What a table says when it has no row stands in none of its cells: an alert without a pod is an alert."""
    config = panel(shown[uid], title)["fieldConfig"]
    assert config["defaults"]["noValue"] != "-"
    assert {"matcher": {"id": "byRegexp", "options": ".*"}, "properties": [{"id": "noValue", "value": "-"}]} in config["overrides"]


def test_labels_in_tables_are_text(shown: dict[str, list[Json]]) -> None:
    """The version 1.10 of a model is not shown as the number 1.1, nor 4 as 4.0, whatever the table's numbers look like."""
    as_text = {"matcher": {"id": "byType", "options": "string"}, "properties": [{"id": "unit", "value": "string"}]}
    tables = [each for panels in shown.values() for each in panels if each["type"] == "table"]
    assert tables
    assert all(as_text == each["fieldConfig"]["overrides"][0] for each in tables)


def test_panels_fill_their_rows(dashboards: dict[str, Json], panels_of: PanelsOf) -> None:
    """No panel stands in a line of which most is empty."""
    for uid, dashboard in dashboards.items():
        rows = [row.get("panels") or [] for row in dashboard["panels"] if row["type"] == "row"]
        for together in [[each for each in dashboard["panels"] if each["type"] != "row"], *rows]:
            widths: dict[int, int] = {}
            for each in together:
                widths[each["gridPos"]["y"]] = widths.get(each["gridPos"]["y"], 0) + each["gridPos"]["w"]
            assert {} == {y: width for y, width in widths.items() if width < 24}, uid


def test_evidence_shows_its_threshold(shown: dict[str, list[Json]]) -> None:
    """The evidence panel draws the line from which on it is drift."""
    found = panel(shown[ONCALL], "Drift evidence by layer")
    assert {"mode": "line"} == found["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]
    assert [None, 1] == steps(found)


def test_surprise_stands_against_both_limits(shown: dict[str, list[Json]]) -> None:
    """The surprise panel draws every tier's limit as a dashed line of its own."""
    found = panel(shown[DEBUG], "Surprise and limits")
    surprise, limit = (target["legendFormat"] for target in found["targets"])
    for tier, dashed in zip(("ticket", "page"), found["fieldConfig"]["overrides"], strict=True):
        assert "custom.lineStyle" in {entry["id"] for entry in dashed["properties"]}
        assert re.fullmatch(dashed["matcher"]["options"], limit.replace("{{tier}}", tier))
        assert not re.fullmatch(dashed["matcher"]["options"], surprise)
    assert "{{tier}}" in limit


def test_where_drift_began_is_told_with_its_scope(shown: dict[str, list[Json]]) -> None:
    """One tile names the first layer and whether traffic or model changed, and says so where there is no drift."""
    found = panel(shown[ONCALL], "Where drift began")
    assert found["targets"][0]["legendFormat"].startswith("{{scope}}: {{layer}} of {{model}}")
    assert "No drift" == found["fieldConfig"]["defaults"]["noValue"]


def test_limits_are_those_of_the_settings(panels_of: PanelsOf) -> None:
    """Lines and colours stand where the alerts' own thresholds are."""
    limits = Thresholds(latency_seconds=0.5, memory_share=0.7, saturation=0.3, accuracy_drop=0.05, quantized_drop=0.04)
    settings = MixinSettings(thresholds=limits, baseline_age="30d")
    shown = {uid: panels_of(json.loads(content)) for uid, content in render(settings).items()}
    assert [None, 0.5] == steps(panel(shown[EXECUTIVE], "Forward latency"))
    assert [None, 0.25, 0.5, 1.0] == steps(panel(shown[ONCALL], "Latency p95 by region and shard"))
    assert [None, 0.7] == steps(panel(shown[DEBUG], "Memory used"))
    assert [None, 0.3] == steps(panel(shown[DEBUG], "Saturation against the baseline"))
    assert [None, 0, 0.05] == steps(panel(shown[EXECUTIVE], "Accuracy lost"))
    assert [None, -0.04] == steps(panel(shown[EXECUTIVE], "Quantised minus original accuracy"))
    assert [None, 30] == steps(panel(shown[FLEET], "Age of baselines"))


def test_buckets_reach_grafana_as_buckets(shown: dict[str, list[Json]]) -> None:
    """Queries of buckets are in heatmap format by edge, and the heatmaps compute nothing themselves."""
    found = [panel(shown[DEBUG], title) for title in ("Activation values over time", "Live", "Baseline")]
    found.append(panel(shown[ONCALL], "Latency of all passes"))
    assert {("heatmap", "{{le}}")} == {(target["format"], target["legendFormat"]) for each in found for target in each["targets"]}
    assert [False, False] == [each["options"]["calculate"] for each in found if each["type"] == "heatmap"]


@pytest.mark.parametrize("title", ["Cumulative share, live over baseline", "Canary, stable and baseline"])
def test_cumulative_shares_are_joined_by_their_edge(shown: dict[str, list[Json]], title: str) -> None:
    """Tables of the last moment are joined by edge, the edge becomes a number in ascending order, and infinity is left out."""
    found = panel(shown[DEBUG], title)
    assert {("table", True)} == {(target["format"], target["instant"]) for target in found["targets"]}
    assert all('le!="+Inf"' in target["expr"] for target in found["targets"])
    done = [step["id"] for step in found["transformations"]]
    assert ["filterFieldsByName", "joinByField", "convertFieldType", "sortBy", "organize"] == done
    assert {"min", "max"}.isdisjoint(found["fieldConfig"]["defaults"]), "they would hold for the edges as well"
    assert ("trend", "le", "le") == (found["type"], found["options"]["xField"], found["transformations"][1]["options"]["byField"])


@pytest.mark.parametrize("title", ["Distribution", "Canary"])
def test_the_distribution_is_shown_for_each_side_of_the_gelu(dashboards: dict[str, Json], title: str) -> None:
    """Values before and after have other edges, so their rows are repeated and never mix them."""
    row = next(each for each in dashboards[DEBUG]["panels"] if each["type"] == "row" and each["title"].startswith(title))
    assert "point" == row["repeat"]
    assert "$point" in row["title"]


def test_every_dashboard_marks_alerts_rollouts_versions_and_baselines(dashboards: dict[str, Json]) -> None:
    """What happened is marked on the time axis of every panel, and a notice is no alert."""
    for uid in DASHBOARDS:
        marked = {annotation["name"]: annotation["expr"] for annotation in dashboards[uid]["annotations"]["list"]}
        assert ["Alerts", "Rollouts", "Model versions", "Baselines"] == list(marked)
        assert 'severity=~"info"' in marked["Rollouts"]
        assert "info" not in marked["Alerts"]


def test_canary_and_stable_pods_are_told_apart_by_the_matchers_of_the_settings() -> None:
    """What marks a canary is the settings' to say, and what it does not match is stable."""
    text = render(MixinSettings(canary='lane="new"'))[ONCALL].decode()
    assert 'lane=\\"new\\"' in text
    assert "track" not in text


def test_recorded_series_are_read_under_the_names_of_their_rules() -> None:
    """Every recorded series that a panel reads is recorded, with the windows of the settings in its name as well."""
    for settings in (MixinSettings(), MixinSettings.quick()):
        recorded = {recording.name for recording in recordings(settings)}
        text = "".join(content.decode() for content in render(settings).values())
        read = set(re.findall(r"[a-z_]+:geluwatch_\w+:\w+", text))
        assert read
        assert set() == read - recorded
