"""The dashboard for who answers for the service: is it quick, right and worth its price."""

from __future__ import annotations

from geluwatch.mixin.dashboards.page import Page
from geluwatch.mixin.dashboards.parts import Queries, Row
from geluwatch.mixin.dashboards.rows import cost, firing, latency, objectives, quality, verdict
from geluwatch.mixin.links import EXECUTIVE


def page(ask: Queries) -> Page:
    """Return the executive dashboard."""
    tiles = (
        verdict.models(ask),
        objectives.left(ask, "latency"),
        objectives.left(ask, "availability"),
        quality.lost(ask),
        cost.million(ask),
        firing.count(ask, "page"),
        firing.count(ask, "ticket"),
    )
    return Page(
        uid=EXECUTIVE,
        title="geluwatch executive",
        description="Whether the models are quick, right and worth their price: latency, error budgets, accuracy, cost, and the alerts.",
        rows=(
            Row("Now", (*tiles, latency.forward(ask), objectives.budget(ask))),
            Row("Quality", (quality.accuracy(ask), quality.wrong(ask), quality.failed(ask), quality.quantised(ask))),
            Row("Cost", (cost.per_million(ask), cost.per_hour(ask), cost.throughput(ask))),
            firing.history_row(ask),
        ),
        since="now-7d",
        refresh="5m",
        by_layer=False,
    )
