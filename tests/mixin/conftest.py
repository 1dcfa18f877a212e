"""What the tests of the generators share: the rendered artefacts, and every PromQL expression in them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import pytest
import yaml

from geluwatch.mixin import build, handbook
from geluwatch.mixin.links import DASHBOARDS
from geluwatch.mixin.settings import MixinSettings

_GRAFANA = {"$__rate_interval": "5m", "$__range": "20m"}


class Query(NamedTuple):
    """One expression of an artefact."""

    source: str
    """Where it stands, for messages."""
    expr: str
    """The expression, Grafana's own variables filled in and recorded series left as they are."""
    legend: str = ""


def program(name: str) -> str:
    """Return the path of an external program; without it the test is skipped, save in CI, where it must be there."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="session")
def programs() -> Callable[[str], str]:
    """Return the function that finds an external program."""
    return program


@pytest.fixture(scope="session")
def promtool() -> str:
    """Return the path of promtool."""
    return program("promtool")


@pytest.fixture(scope="session")
def prometheus() -> str:
    """Return the path of prometheus."""
    return program("prometheus")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the repository."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def rendered() -> dict[str, bytes]:
    """Return every artefact at the default settings."""
    return build.render_all(MixinSettings())


@pytest.fixture(scope="session")
def dashboards(rendered: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """Return every dashboard by its uid."""
    return {uid: json.loads(rendered[f"dashboards/{uid}.json"]) for uid in DASHBOARDS}


@pytest.fixture(scope="session")
def rules(rendered: dict[str, bytes]) -> list[dict[str, Any]]:
    """Return every rule of the rule file."""
    files = [content for path, content in rendered.items() if path.endswith(".rules.yaml")]
    parsed: list[dict[str, Any]] = [group for content in files for group in yaml.safe_load(content)["groups"]]
    return [rule for group in parsed for rule in group["rules"]]


@pytest.fixture(scope="session")
def queries(rules: list[dict[str, Any]], dashboards: dict[str, dict[str, Any]]) -> list[Query]:
    """Return every expression of rules, annotations, dashboards and runbooks, those that several dashboards share once."""
    shown = dict.fromkeys(query for dashboard in dashboards.values() for query in _of_dashboard(dashboard))
    return [*_of_rules(rules), *shown, *_of_runbooks()]


@pytest.fixture(scope="session")
def nodes() -> Callable[[str], list[Any]]:
    """Return the function that lists the nodes of an expression's syntax tree."""
    return _nodes


def _nodes(expr: str) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(expr), found.append)
    return found


def _of_rules(rules: list[dict[str, Any]]) -> Iterator[Query]:
    for rule in rules:
        name = rule.get("record") or rule["alert"]
        yield Query(f"rule {name}", rule["expr"])
        for text in rule.get("annotations", {}).values():
            for asked in re.findall(r"query (?:\(printf )?`([^`]*)`", text):
                yield Query(f"annotation of {name}", re.sub(r"%(?:\[\d\])?s", "", asked).replace("%q", '"x"').replace("{,", "{"))


@pytest.fixture(scope="session")
def panels_of() -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """Return the function that lists the panels of a dashboard that show something, those in collapsed rows included."""
    return _panels_of


def _panels_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    listed = [panel for shown in dashboard["panels"] for panel in (shown, *shown.get("panels", ()))]
    return [panel for panel in listed if panel["type"] != "row"]


def _of_dashboard(dashboard: dict[str, Any]) -> Iterator[Query]:
    everything = {variable["name"]: variable.get("allValue") for variable in dashboard["templating"]["list"]}
    for panel in _panels_of(dashboard):
        for target in panel["targets"]:
            yield Query(f"panel {panel['title']}", _filled(target["expr"], everything), target["legendFormat"])
    for annotation in dashboard["annotations"]["list"]:
        yield Query(f"annotation {annotation['name']}", _filled(annotation["expr"], everything), annotation["textFormat"])
    for variable in dashboard["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
        if asked:
            yield Query(f"variable {variable['name']}", _filled(asked[1], everything), f"{{{{{asked[2]}}}}}")


def _of_runbooks() -> Iterator[Query]:
    for path, text in handbook.files(MixinSettings()).items():
        for fence in re.findall(r"```promql\n(.*?)```", text, re.DOTALL):
            yield Query(f"runbook {Path(path).stem}", fence)


def _filled(expr: str, everything: dict[str, str | None]) -> str:
    for name, value in _GRAFANA.items():
        expr = expr.replace(name, value)
    return re.sub(r"\$(\w+)", lambda variable: str(everything[variable[1]]), expr)
