"""What the tests of the dashboards as Grafana reads them share."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip a test for want of something that `make test` installs; in CI that is a failure."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is not there; `make test` installs it")


@pytest.fixture(scope="session")
def dashboards(rendered: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """Return every dashboard by uid."""
    found = [json.loads(content) for path, content in rendered.items() if path.startswith("dashboards/")]
    return {dashboard["uid"]: dashboard for dashboard in found}


@pytest.fixture(scope="session")
def sdk() -> Path:
    """Return the folder that holds grafana-foundation-sdk, each version in a folder of its own."""
    found = Path(os.environ.get("GELUWATCH_GRAFANA_SDK", f"{sys.prefix}/sdk"))
    return found if found.is_dir() else missing(str(found))


@pytest.fixture(scope="session")
def node(root: Path) -> str:
    """Return the path of node, Grafana's packages being installed where the scripts of tools/grafana look for them."""
    found = shutil.which("node")
    modules = root / "tools/grafana/node_modules"
    return found if found and modules.is_dir() else missing(str(modules) if found else "node")
