"""The dashboard for who was woken: is something wrong, with which model, where, since when, and what to open."""

from __future__ import annotations

from geluwatch.mixin.dashboards.page import Page
from geluwatch.mixin.dashboards.parts import Queries, Row
from geluwatch.mixin.dashboards.rows import (
    cost,
    drift,
    firing,
    health,
    latency,
    mix,
    nonfinite,
    numerics,
    objectives,
    pods,
    process,
    quality,
    rollout,
    statistics,
    traffic,
    training,
    verdict,
)
from geluwatch.mixin.links import ONCALL


def page(ask: Queries) -> Page:
    """Return the on-call dashboard."""
    return Page(
        uid=ONCALL,
        title="geluwatch on call",
        description="What fires, which model is in trouble, where and since when. Alerts open their runbooks, the rest opens in debug.",
        rows=(
            _now(ask),
            Row("Where", (nonfinite.first(ask, size=(9, 6)), drift.began(ask), drift.since(ask))),
            Row("NaN, Inf and memory", (nonfinite.passes(ask), latency.failures(ask))),
            _latency(ask),
            rollout.row(ask),
            _anomalies(ask),
            _watching(ask),
            _slower(ask),
        ),
    )


def _now(ask: Queries) -> Row:
    tiles = (
        firing.tile(ask, "page"),
        firing.tile(ask, "ticket"),
        verdict.agents(ask),
        verdict.nonfinite(ask),
        verdict.out_of_memory(ask),
        verdict.gross(ask),
        verdict.drift(ask),
    )
    return Row("Now", (*tiles, firing.table(ask), verdict.timeline(ask)))


def _latency(ask: Queries) -> Row:
    panels = (latency.heatmap(ask), latency.places(ask), objectives.rates(ask), objectives.burning(ask), latency.spike(ask))
    return Row("Latency and error budgets", panels)


def _anomalies(ask: Queries) -> Row:
    """Return the row of what is odd about the activations, layer by layer."""
    tables = (numerics.faults(ask), numerics.overflows(ask), numerics.mismatches(ask))
    return Row("Activations by layer", (drift.evidence(ask), pods.evidence(ask), drift.probes(ask), drift.probed(ask), *tables))


def _watching(ask: Queries) -> Row:
    """Return the row of whether anything would be seen."""
    tiles = (
        verdict.blind(ask),
        verdict.baseline(ask),
        pods.unmatched(ask),
        firing.missing(ask),
        health.broken(ask),
        health.dear(ask),
        pods.count(ask),
        pods.versions(ask),
    )
    panels = (
        traffic.ages(ask, size=(8, 8)),
        health.errors(ask, size=(8, 8)),
        health.budget(ask),
        mix.ages(ask, size=(12, 8)),
        mix.baselines(ask, size=(12, 8)),
    )
    return Row("Is the watch itself awake", (*tiles, *panels), collapsed=True)


def _slower(ask: Queries) -> Row:
    """Return the row of troubles that can wait for the morning."""
    service = (process.pressure(ask), quality.accuracy(ask, size=(8, 8)), quality.quantised(ask, size=(8, 8)), cost.per_million(ask))
    return Row("Slower troubles", (*service, statistics.saturation(ask), training.faults(ask)), collapsed=True)
