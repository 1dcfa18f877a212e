"""The dashboard for who looks for the cause: distributions, statistics, arithmetic, cost and training, layer by layer."""

from __future__ import annotations

from geluwatch.mixin.dashboards.page import Page
from geluwatch.mixin.dashboards.parts import Queries, Row
from geluwatch.mixin.dashboards.rows import (
    distribution,
    drift,
    gelu,
    latency,
    nonfinite,
    numerics,
    process,
    quality,
    rollout,
    statistics,
    training,
    verdict,
)
from geluwatch.mixin.links import DEBUG


def page(ask: Queries) -> Page:
    """Return the debug dashboard."""
    return Page(
        uid=DEBUG,
        title="geluwatch debug",
        description="What changed in a model, layer by layer. Choose a model and a layer first.",
        rows=(
            Row(
                "Where to look", (drift.evidence(ask), drift.surprise(ask), verdict.timeline(ask, (12, 7)), rollout.timeline(ask, (12, 7)))
            ),
            distribution.buckets_row(ask),
            distribution.moments_row(ask),
            statistics.row(ask),
            distribution.canary_row(ask),
            nonfinite.row(ask),
            numerics.row(ask),
            gelu.row(ask),
            latency.load_row(ask),
            quality.row(ask),
            process.row(ask),
            training.row(ask),
        ),
    )
