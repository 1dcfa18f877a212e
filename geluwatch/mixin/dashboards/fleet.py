"""The dashboard for who runs the fleet: pods, versions, baselines and regions beside each other."""

from __future__ import annotations

from geluwatch.mixin.dashboards.page import Page
from geluwatch.mixin.dashboards.parts import Queries, Row
from geluwatch.mixin.dashboards.rows import mix, pods, rollout, traffic, verdict
from geluwatch.mixin.links import FLEET


def page(ask: Queries) -> Page:
    """Return the fleet dashboard."""
    tiles = (
        verdict.models(ask),
        pods.count(ask),
        pods.versions(ask),
        pods.straying(ask),
        pods.unmatched(ask),
        verdict.drift(ask),
        verdict.baseline(ask),
    )
    return Page(
        uid=FLEET,
        title="geluwatch fleet",
        description="Pods, versions, baselines and regions beside each other: whether all of a model's pods do the same.",
        rows=(
            Row("Fleet", (*tiles, pods.outliers(ask), pods.matrix(ask), mix.regions(ask))),
            pods.fleet_row(ask),
            pods.evidence_row(ask),
            Row("Canary", (rollout.canary(ask), rollout.beside(ask, size=(12, 8)))),
            mix.versions_row(ask),
            mix.load_row(ask),
            traffic.row(ask),
        ),
    )
