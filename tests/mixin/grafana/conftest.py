"""What the tests of the dashboards as Grafana reads them share."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.fixture(scope="session")
def dashboards(rendered: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """Return every dashboard by uid."""
    found = [json.loads(content) for path, content in rendered.items() if path.startswith("dashboards/")]
    return {dashboard["uid"]: dashboard for dashboard in found}
