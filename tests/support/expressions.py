"""Every PromQL expression of the rendered artefacts, and where it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from geluwatch.mixin import build, handbook
from geluwatch.mixin.links import DASHBOARDS
from geluwatch.mixin.settings import MixinSettings


class Query(NamedTuple):
    """One expression of an artefact."""

    source: str
    """Where it stands, for messages."""
    expr: str
    """The expression, Grafana's own variables filled in and recorded series left as they are."""
    legend: str = ""


def every(settings: MixinSettings, interval: str, span: str) -> list[Query]:
    """Return every expression of rules, annotations, dashboards, runbooks and playbooks, those that several dashboards share once.

    Args:
        settings: What the artefacts are rendered with.
        interval: What Grafana would put for `$__rate_interval`.
        span: What it would put for `$__range`.
    """
    rendered = build.render_all(settings)
    drawn = [json.loads(rendered[f"dashboards/{uid}.json"]) for uid in DASHBOARDS]
    shown = dict.fromkeys(query for dashboard in drawn for query in _of_dashboard(dashboard, interval, span))
    return [*_of_rules(rules(rendered)), *shown, *_of_handbook(settings)]


def rules(rendered: dict[str, bytes]) -> list[dict[str, Any]]:
    """Return every rule of the rendered rule files."""
    files = [yaml.safe_load(content) for path, content in rendered.items() if path.endswith(".rules.yaml")]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def panels_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the panels of a dashboard that show something, those in collapsed rows included."""
    listed = [panel for shown in dashboard["panels"] for panel in (shown, *shown.get("panels", ()))]
    return [panel for panel in listed if panel["type"] != "row"]


def _of_rules(rules: list[dict[str, Any]]) -> Iterator[Query]:
    for rule in rules:
        name = rule.get("record") or rule["alert"]
        yield Query(f"rule {name}", rule["expr"])
        for text in rule.get("annotations", {}).values():
            for asked in re.findall(r"query (?:\(printf )?`([^`]*)`", text):
                yield Query(f"annotation of {name}", re.sub(r"%(?:\[\d\])?s", "", asked).replace("%q", '"x"').replace("{,", "{"))


def _of_dashboard(dashboard: dict[str, Any], interval: str, span: str) -> Iterator[Query]:
    everything = {variable["name"]: variable.get("allValue") for variable in dashboard["templating"]["list"]}
    everything |= {"__rate_interval": interval, "__range": span}
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            yield Query(f"panel {panel['title']}", _filled(target["expr"], everything), target["legendFormat"])
    for annotation in dashboard["annotations"]["list"]:
        yield Query(f"annotation {annotation['name']}", _filled(annotation["expr"], everything), annotation["textFormat"])
    for variable in dashboard["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
        if asked:
            yield Query(f"variable {variable['name']}", _filled(asked[1], everything), f"{{{{{asked[2]}}}}}")


def _of_handbook(settings: MixinSettings) -> Iterator[Query]:
    for path, text in handbook.files(settings).items():
        for fence in re.findall(r"```promql\n(.*?)```", text, re.DOTALL):
            yield Query(f"runbook {Path(path).stem}", fence)


def _filled(expr: str, everything: dict[str, str | None]) -> str:
    return re.sub(r"\$([a-zA-Z_]\w*)", lambda variable: str(everything[variable[1]]), expr)  # "$1" is a group of label_replace
