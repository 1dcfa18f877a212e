"""What the tests of the generators share: the rendered artefacts, and every PromQL expression in them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import expressions
import promql_parser
import pytest
from expressions import Query

from geluwatch.mixin import build
from geluwatch.mixin.links import DASHBOARDS
from geluwatch.mixin.settings import MixinSettings


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
    return expressions.rules(rendered)


@pytest.fixture(scope="session")
def queries() -> list[Query]:
    """Return every expression of rules, annotations, dashboards, runbooks and playbooks."""
    return expressions.every(MixinSettings(), "5m", "20m")


@pytest.fixture(scope="session")
def nodes() -> Callable[[str], list[Any]]:
    """Return the function that lists the nodes of an expression's syntax tree."""
    return _nodes


def _nodes(expr: str) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(expr), found.append)
    return found


@pytest.fixture(scope="session")
def panels_of() -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """Return the function that lists the panels of a dashboard that show something, those in collapsed rows included."""
    return expressions.panels_of
