"""Where dashboards and runbooks are found: the names that links use, in one place for alerts, panels, pages and tests."""

from __future__ import annotations

from collections.abc import Mapping

EXECUTIVE = "geluwatch-executive"
ONCALL = "geluwatch-oncall"
DEBUG = "geluwatch-debug"
FLEET = "geluwatch-fleet"
AGENTS = "geluwatch-agents"

DASHBOARDS = (EXECUTIVE, ONCALL, DEBUG, FLEET, AGENTS)
"""Every dashboard, by uid, which is its file's name as well."""

RUNBOOKS: Mapping[str, str] = {
    "nonfinite": "GeluwatchNonFiniteActivations",
    "gross": "GeluwatchGrossFault",
    "overflow": "GeluwatchOverflowAhead",
    "drift": "GeluwatchActivationDrift",
    "model": "GeluwatchModelChanged",
    "kernel": "GeluwatchKernelMismatch",
    "warming": "GeluwatchBaselineMissing",
    "blind": "GeluwatchSitesBlind",
}
"""The runbook that fits each trouble that a report may be in (see `geluwatch.export.pages`)."""
