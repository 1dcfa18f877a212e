"""Real answers of a Prometheus, taken through the code that Grafana's own panels get them from, are what the panels need."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

Json = dict[str, Any]
Panel = tuple[Json, list[Json]]
"""A panel, and the frames that Grafana gives it."""


def _run(*command: object, told: object = None) -> Any:
    done = subprocess.run([str(word) for word in command], input=json.dumps(told), capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def panels(node: str, root: Path, prometheus: str, promtool: str) -> list[Panel]:
    """Return every panel that asks something, with what it is given to show."""
    tools = root / "tools/grafana"
    shown = _run(sys.executable, tools / "answers.py")
    asking = [panel for sections in shown.values() for section in sections for panel in section["panels"] if panel.get("targets")]
    return list(zip(asking, _run(node, tools / "frames.mjs", told=asking), strict=True))


def test_every_panel_has_something_to_show_or_says_what_nothing_means(panels: list[Panel]) -> None:
    """After the data source and all transformations values are left in nearly every panel, and an empty one has its own words."""
    empty = [panel for panel, frames in panels if not any(field["values"] for frame in frames for field in frame["fields"][1:])]
    assert [] == [panel["title"] for panel in empty if not panel["fieldConfig"]["defaults"].get("noValue")]
    assert len(empty) <= 0.05 * len(panels), [panel["title"] for panel in empty]


def test_buckets_are_in_order_and_none_is_negative(panels: list[Panel]) -> None:
    """Grafana sorts the bounds by number, negative ones too, and what it takes for each bucket is its own share."""
    shown = [
        (panel["title"], frame)
        for panel, frames in panels
        if "heatmap" in {target["format"] for target in panel["targets"]}
        for frame in frames
    ]
    assert shown
    for title, frame in shown:
        assert "heatmap-rows" == frame["type"], title
        bounds = [float(field["title"].replace("Inf", "inf")) for field in frame["fields"] if field["type"] == "number"]
        assert sorted(bounds) == bounds, title
        assert math.inf == bounds[-1], title
        assert all(value is None or value >= -1e-9 for field in frame["fields"][1:] for value in field["values"]), title
    assert any(frame["fields"][1]["title"].startswith("-") for _, frame in shown)


def _used(dashboard: Json) -> Iterator[tuple[str, str]]:
    """Yield (what, name) for every name whose type is no more than text."""
    nested = [inner for panel in dashboard["panels"] for inner in panel.get("panels", ())]
    for panel in [*dashboard["panels"], *nested]:
        config, options = panel.get("fieldConfig", {"defaults": {}, "overrides": []}), panel.get("options", {})
        settings = [*config["defaults"].items(), *((e["id"], e["value"]) for over in config["overrides"] for e in over["properties"])]
        # A count has whatever name follows it.
        yield from (("units", value) for name, value in settings if name == "unit" and not value.startswith("count:"))
        yield from (("colours", value["mode"]) for name, value in settings if name == "color")
        yield from (("matchers", over["matcher"]["id"]) for over in config["overrides"])
        yield from (("transformations", step["id"]) for step in panel.get("transformations", ()))
        calcs = [*options.get("reduceOptions", {}).get("calcs", ()), *options.get("legend", {}).get("calcs", ())]
        yield from (("reducers", calc) for calc in calcs)


def test_grafana_knows_every_name(dashboards: dict[str, Json], node: str, root: Path) -> None:
    """Units, colour modes, matchers, transformations and reducers are all ones that Grafana registers."""
    known = _run(node, root / "tools/grafana/known.mjs")
    used = {entry for dashboard in dashboards.values() for entry in _used(dashboard)}
    assert set() == {(what, name) for what, name in used if name not in known[what]}
    assert {"units", "colours", "matchers", "transformations", "reducers"} == {what for what, _ in used}
