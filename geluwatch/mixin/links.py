"""Where dashboards and runbooks are found: the uids that links name, in one place for alerts, panels and tests."""

from __future__ import annotations

EXECUTIVE = "geluwatch-executive"
ONCALL = "geluwatch-oncall"
DEBUG = "geluwatch-debug"
FLEET = "geluwatch-fleet"
AGENTS = "geluwatch-agents"

DASHBOARDS = (EXECUTIVE, ONCALL, DEBUG, FLEET, AGENTS)
"""Every dashboard, by uid, which is its file's name as well."""
