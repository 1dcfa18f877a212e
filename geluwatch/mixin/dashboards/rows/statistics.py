"""The row that says what changed: statistics of the last window against the baseline, which explain and do not decide."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin.dashboards.parts import BY_LAYER, LAYERS, LAYERS_FROM_ZERO, OF_LAYER, OF_POINT, ONLY_THIS_LAYER, Queries, Row
from geluwatch.mixin.panels import LINE_AT_THRESHOLD, NEUTRAL, ORANGE, TEXT, Json, TimeSeries, dashed, steps, target
from geluwatch.mixin.queries import largest, mean

_WIDE, _NARROW = (12, 8), (8, 8)
_GATES = {"closed": catalog.GATE_CLOSED, "open": catalog.GATE_OPEN}

_WASSERSTEIN = "How far values moved in all, in the baseline's standard deviations."
_MEAN = "Mean minus the baseline's, in the baseline's standard deviations."
_SPREAD = "Natural logarithm of the ratio of standard deviations: 0.7 is twice as wide, -0.7 half."
_TAILS = "Share of values beyond the baseline's quantiles of 0.1 % and 99.9 %; 0.2 % is calm."
_ZEROS = "Share of values that are zero: padding, pruning, a skipped layer."
_SCORE = "Typical squared channel z at the horizon that surprises most; about 1 when calm."
_PSI = "On the baseline's deciles; for display, since its customary limits know no sample size."


def row(ask: Queries) -> Row:
    """Return the row of statistics."""
    panels = (
        _distance(ask),
        _plain(ask, "Wasserstein distance", _WASSERSTEIN, catalog.WASSERSTEIN, LAYERS_FROM_ZERO, size=_WIDE),
        _plain(ask, "Mean shift", _MEAN, catalog.MEAN_SHIFT, size=_WIDE),
        _plain(ask, "Spread shift", _SPREAD, catalog.SPREAD_SHIFT, size=_WIDE),
        _plain(ask, "Tails", _TAILS, catalog.TAIL, LAYERS_FROM_ZERO, "percentunit"),
        _gates(ask),
        saturation(ask),
        _plain(ask, "Exact zeros", _ZEROS, catalog.ZERO, LAYERS_FROM_ZERO, "percentunit"),
        _plain(ask, "Drift score", _SCORE, catalog.SCORE, LAYERS_FROM_ZERO),
        _plain(ask, "Population stability index", _PSI, catalog.PSI, LAYERS_FROM_ZERO),
    )
    return Row("What changed", panels, collapsed=True)


def _plain(
    ask: Queries,
    title: str,
    description: str,
    metric: Metric,
    field: Json = ONLY_THIS_LAYER,
    unit: str = "none",
    size: tuple[int, int] = _NARROW,
) -> TimeSeries:
    return TimeSeries(
        title,
        f"{description} Averaged over pods.",
        [target(ask.of_pods(metric), OF_POINT)],
        size=size,
        unit=unit,
        field=field,
    )


def _distance(ask: Queries) -> TimeSeries:
    lower, upper = ask.of_pods(catalog.KS), ask.of_pods(catalog.KS_UPPER)
    width = largest(f"({upper}) - ({lower})", "point")
    return TimeSeries(
        "KS distance from the baseline",
        "The Kolmogorov-Smirnov distance, as far as the buckets tell it for sure. Dashed: by how much more it can be at most, before the "
        "GELU and after it. It explains a drift and does not decide it.",
        [target(lower, OF_POINT), target(width, "bound {{point}} the GELU")],
        size=_WIDE,
        unit="none",
        field=LAYERS_FROM_ZERO,
        overrides=[dashed("^bound .*", TEXT)],
    )


def _gates(ask: Queries) -> TimeSeries:
    shares = {state: mean(ask.known(gate, LAYERS), *BY_LAYER) for state, gate in _GATES.items()}
    return TimeSeries(
        "Gates closed and open",
        "Share of values before the GELU below -3, where it lets through next to nothing, and above 3, where it is the identity.",
        [target(expr, f"{state} at {OF_LAYER}") for state, expr in shares.items()],
        size=_NARROW,
        unit="percentunit",
        field=LAYERS_FROM_ZERO,
    )


def saturation(ask: Queries) -> TimeSeries:
    """Return how far the shares of closed and of open gates are above the baseline's."""
    rise = ask.settings.thresholds.saturation
    excess = {state: ask.rule(name, LAYERS) for state, name in ask.recorded.excess.items()}
    return TimeSeries(
        "Saturation against the baseline",
        f"How far the shares of closed and of open gates are above the baseline's. From the line at {rise:.0%} on it is a ticket: a layer "
        "with closed gates passes nothing on, one with open gates has become linear.",
        [target(expr, f"{state} at {OF_LAYER}") for state, expr in excess.items()],
        size=_NARROW,
        unit="percentunit",
        field={**ONLY_THIS_LAYER, "noValue": "No baseline", "thresholds": steps(NEUTRAL, (rise, ORANGE))},
        custom=LINE_AT_THRESHOLD,
        links=ask.runbook("Saturation"),
    )
