"""What the overview dashboard shows, row by row: first whether something is wrong, then where, then what, then the agent."""

from __future__ import annotations

from geluwatch.mixin.overview import agents, distribution, drift, latency, nonfinite, numerics, statistics, traffic, training, verdict
from geluwatch.mixin.overview.parts import Queries, Row
from geluwatch.mixin.settings import MixinSettings

_ROWS = (
    verdict.row,
    nonfinite.row,
    drift.row,
    statistics.row,
    numerics.row,
    distribution.buckets_row,
    distribution.moments_row,
    traffic.row,
    latency.row,
    latency.process_row,
    training.row,
    agents.census_row,
    agents.health_row,
)


def rows(settings: MixinSettings) -> tuple[Row, ...]:
    """Return the rows of the overview."""
    ask = Queries(settings)
    return tuple(build(ask) for build in _ROWS)
