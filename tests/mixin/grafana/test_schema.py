"""Grafana's published TypeScript types, of the oldest and the newest major version that has them for panels, accept every dashboard."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Json = dict[str, Any]
Complaints = Callable[[list[Json]], list[str]]

UNTYPED = {
    r"1[13]: .*: state-timeline .*'\"spanNulls\"' does not exist.*": "an option of the panel since Grafana 9 that its published types lack",
}
"""What the types do not have although Grafana reads it, by pattern of the complaint, and why."""


@pytest.fixture(scope="module")
def complaints(root: Path, node: str) -> Complaints:
    """Return the function that lists what TypeScript's compiler says of dashboards."""

    def compiled(dashboards: list[Json]) -> list[str]:
        command = [node, str(root / "tools/grafana/check_types.mjs")]
        done = subprocess.run(command, input=json.dumps(dashboards), capture_output=True, text=True, check=False)
        assert "" == done.stderr
        return done.stdout.splitlines()

    return compiled


def test_grafana_11_and_13_know_every_key_and_value(complaints: Complaints, dashboards: dict[str, Json]) -> None:
    """The compiler has nothing to say of any dashboard, panel, option, field setting or override, save what is listed and needed."""
    found = complaints(list(dashboards.values()))
    let_through = {complaint: pattern for complaint in found for pattern in UNTYPED if re.fullmatch(pattern, complaint)}
    assert "" == "\n".join(complaint for complaint in found if complaint not in let_through)
    assert set(UNTYPED) == set(let_through.values())


def _first(dashboard: Json, kind: str) -> Json:
    return next(panel for panel in dashboard["panels"] if panel["type"] == kind)


def _override(dashboard: Json, name: str, value: object) -> None:
    field = _first(dashboard, "timeseries")["fieldConfig"]
    field["overrides"] = [{"matcher": {"id": "byName", "options": "a"}, "properties": [{"id": name, "value": value}]}]


def _nest(dashboard: Json) -> None:
    inner = {**_first(dashboard, "heatmap"), "colour": "red"}
    dashboard["panels"].append({"type": "row", "title": "More", "id": 99, "collapsed": True, "panels": [inner]})


FAULTS: dict[str, Callable[[Json], object]] = {
    "dashboard-key": lambda dashboard: dashboard.update(colour="red"),
    "variable-value": lambda dashboard: dashboard["templating"]["list"][0].update(type="choice"),
    "row-key": lambda dashboard: _first(dashboard, "row").update(targets=[]),
    "nested-key": _nest,
    "option-key": lambda dashboard: _first(dashboard, "timeseries")["options"]["legend"].update(colour="red"),
    "option-value": lambda dashboard: _first(dashboard, "heatmap")["options"]["color"].update(mode="schema"),
    "field-key": lambda dashboard: _first(dashboard, "heatmap")["fieldConfig"]["defaults"].update(units="s"),
    "custom-key": lambda dashboard: _first(dashboard, "timeseries")["fieldConfig"]["defaults"]["custom"].update(linewidth=1),
    "custom-value": lambda dashboard: _first(dashboard, "timeseries")["fieldConfig"]["defaults"]["custom"].update(drawStyle="lines"),
    "override-key": lambda dashboard: _override(dashboard, "units", "s"),
    "override-custom": lambda dashboard: _override(dashboard, "custom.lineStyle", {"fill": "dashed"}),
}


def test_planted_faults_are_found_by_both_versions(complaints: Complaints, dashboards: dict[str, Json]) -> None:
    """A key or a value that no type allows is told for either version, wherever in a dashboard it stands."""
    kinds = ["timeseries", "heatmap", "row"]
    sound = next(dashboard for dashboard in dashboards.values() if set(kinds) <= {panel["type"] for panel in dashboard["panels"]})
    small = {**sound, "panels": [_first(sound, kind) for kind in kinds]}
    broken = [{**copy.deepcopy(small), "uid": name} for name in FAULTS]
    for dashboard, fault in zip(broken, FAULTS.values(), strict=True):
        fault(dashboard)
    found = {tuple(complaint.split(": ")[:2]) for complaint in complaints(broken)}
    assert {(version, name) for name in FAULTS for version in ("11", "13")} == found
