"""Grafana's own models, as grafana-foundation-sdk has them for several versions, keep every key of every dashboard.

A key that is lost is one that Grafana does not read: misspelt, retired, or newer than that version.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Json = dict[str, Any]
Difference = tuple[str, str, str]

HERE = Path(__file__).parent
VERSIONS = [line.split("!")[-1] for line in (HERE / "sdk.txt").read_text().split()]

BEFORE_13 = [version for version in VERSIONS if version != "0.0.21"]

_LATE = {
    **{
        f"dashboard.annotations.list.{key}": "read by the Prometheus data source itself"
        for key in ("step", "tagKeys", "textFormat", "titleFormat")
    },
    "state-timeline field.spanNulls": "an option of the panel since Grafana 9, missing in its models until 13",
}
UNTYPED = {
    **{(version, path): reason for version in BEFORE_13 for path, reason in _LATE.items()},
    ("10.1.0", "heatmap.options.tooltip.mode"): "since Grafana 10.3; before, `show` alone is read, and is on by default",
    ("10.1.0", "heatmap.options.tooltip.showColorScale"): "since Grafana 10.2; before, the scale stands in the legend alone",
}
"""What a version's models do not know although Grafana reads it or can do without, by version and path, and why."""


def not_kept(folder: Path, dashboards: dict[str, Json]) -> list[Difference]:
    """Return (uid, path, what) for everything that the models of the version in a folder do not keep."""
    command = [sys.executable, str(HERE / "round_trip.py")]
    asked = json.dumps(dashboards)
    done = subprocess.run(command, input=asked, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    return [tuple(difference) for difference in json.loads(done.stdout)]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_key_is_kept(version: str, sdk: Path, dashboards: dict[str, Json]) -> None:
    """From JSON to the version's models and back, nothing is lost or changed at any depth, save what is listed."""
    found = [f"{uid}: {path} is {what}" for uid, path, what in not_kept(sdk / version, dashboards) if (version, path) not in UNTYPED]
    assert "" == "\n".join(found)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_listed_is_really_lost(version: str, sdk: Path, dashboards: dict[str, Json]) -> None:
    """Nothing stands in the list that a version's models keep."""
    assert {path for listed, path in UNTYPED if listed == version} <= {path for _, path, _ in not_kept(sdk / version, dashboards)}


def _first(dashboard: Json, kind: str) -> Json:
    return next(panel for panel in dashboard["panels"] if panel["type"] == kind)


def _override(dashboard: Json, name: str) -> None:
    field = _first(dashboard, "timeseries")["fieldConfig"]
    field["overrides"] = [{"matcher": {"id": "byName", "options": "a"}, "properties": [{"id": name, "value": 1}]}]


def _nest(dashboard: Json) -> None:
    inner = {**_first(dashboard, "heatmap"), "colour": "red"}
    dashboard["panels"].append({"type": "row", "title": "More", "collapsed": True, "panels": [inner]})


FAULTS: dict[str, Callable[[Json], object]] = {
    "dashboard.colour": lambda dashboard: dashboard.update(colour="red"),
    "dashboard.templating.list.colour": lambda dashboard: dashboard["templating"]["list"][0].update(colour="red"),
    "timeseries.targets.colour": lambda dashboard: _first(dashboard, "timeseries")["targets"][0].update(colour="red"),
    "timeseries.options.legend.colour": lambda dashboard: _first(dashboard, "timeseries")["options"]["legend"].update(colour="red"),
    "heatmap.options.yAxis.colour": lambda dashboard: _first(dashboard, "heatmap")["options"]["yAxis"].update(colour="red"),
    "heatmap field.colour": lambda dashboard: _first(dashboard, "heatmap")["fieldConfig"]["defaults"]["custom"].update(colour="red"),
    "stat custom.colour": lambda dashboard: _first(dashboard, "stat")["fieldConfig"]["defaults"].update(custom={"colour": "red"}),
    "timeseries field.linewidth": lambda dashboard: _override(dashboard, "custom.linewidth"),
    "timeseries field.units": lambda dashboard: _override(dashboard, "units"),
    "heatmap.colour": _nest,
}


def test_a_key_that_grafana_does_not_know_is_found_wherever_it_is(sdk: Path, dashboards: dict[str, Json]) -> None:
    """In dashboard, variable, target, options, field, override and collapsed row, a made-up key is lost and told."""
    dashboard = next(
        dashboard for dashboard in dashboards.values() if {"timeseries", "heatmap", "stat"} <= {p["type"] for p in dashboard["panels"]}
    )
    for version in VERSIONS:
        broken = {path: copy.deepcopy(dashboard) for path in FAULTS}
        for path, fault in FAULTS.items():
            fault(broken[path])
        found = not_kept(sdk / version, broken)
        assert set() == {(path, path, "lost") for path in FAULTS} - set(found), version
