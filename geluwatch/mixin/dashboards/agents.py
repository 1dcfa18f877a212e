"""The dashboard for who runs the agents: what they watch, what they cost, and where they fail."""

from __future__ import annotations

from geluwatch.mixin.dashboards.page import Page
from geluwatch.mixin.dashboards.parts import Queries, Row
from geluwatch.mixin.dashboards.rows import census, firing, health, mix, pods, traffic, verdict
from geluwatch.mixin.links import AGENTS


def page(ask: Queries) -> Page:
    """Return the dashboard of agent health."""
    tiles = (
        verdict.agents(ask),
        firing.missing(ask),
        verdict.blind(ask),
        verdict.baseline(ask),
        health.broken(ask),
        health.dear(ask),
        pods.count(ask),
    )
    return Page(
        uid=AGENTS,
        title="geluwatch agents",
        description="Whether the watch itself is awake: which GELUs are observed, what agents cost, where they fail, what they export.",
        rows=(
            Row("Agents", (*tiles, census.agents(ask), census.sites(ask))),
            health.row(ask),
            Row("Windows and baselines", (traffic.ages(ask), mix.ages(ask, size=(12, 7)), census.baselines(ask))),
            health.export_row(ask),
        ),
        by_layer=False,
    )
