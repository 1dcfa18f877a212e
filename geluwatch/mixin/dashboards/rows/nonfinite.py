"""NaN and Inf: how often, where first, of what kind, how far."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin.dashboards.parts import BY_LAYER, LAYERS, LAYERS_FROM_ZERO, OF_LAYER, OF_MODEL, ONLY_THIS_MODEL, Queries, Row, amounts
from geluwatch.mixin.panels import RED, Bars, TimeSeries, per_second, steps, target
from geluwatch.mixin.queries import GROUP, total


def row(ask: Queries) -> Row:
    """Return the row that follows NaN and Inf through the layers."""
    spread = _by_layer(
        ask,
        catalog.SITE_NONFINITE,
        "Spread through the layers",
        "Forward passes with NaN or Inf by layer, including those that inherited the values from a layer before.",
    )
    padding = _by_layer(
        ask,
        catalog.SITE_PADDING_NONFINITE,
        "At padding only",
        "Forward passes with NaN or Inf at padding rows only: harmless, and never paged.",
    )
    return Row("NaN and Inf", (passes(ask), first(ask), _kinds(ask), spread, padding), collapsed=True)


def passes(ask: Queries) -> TimeSeries:
    """Return the passes with NaN or Inf over time."""
    return TimeSeries(
        "Forward passes with NaN or Inf",
        "Every forward pass is checked. Zero is healthy; anything else pages.",
        [target(total(ask.rate(catalog.NONFINITE_FORWARDS), *GROUP), OF_MODEL)],
        size=(12, 8),
        unit=per_second("passes"),
        field={**ONLY_THIS_MODEL, "min": 0, "color": {"mode": "fixed", "fixedColor": RED}},
        custom={"fillOpacity": 20},
        links=ask.runbook("NonFiniteActivations"),
    )


def first(ask: Queries, size: tuple[int, int] = (12, 8)) -> Bars:
    """Return the layers in which the values appeared first."""
    return Bars(
        "First layer with NaN or Inf",
        "Forward passes of the shown time range by the layer in which the values appeared first: look there.",
        [target(f"sort_desc({total(ask.grown(catalog.SITE_FIRST_NONFINITE), *BY_LAYER)})", OF_LAYER, instant=True)],
        size=size,
        unit="locale",
        field={**LAYERS_FROM_ZERO, "decimals": 0, "noValue": "None", "thresholds": steps(RED)},
        links=ask.runbook("NonFiniteActivations"),
    )


def _kinds(ask: Queries) -> TimeSeries:
    return amounts(
        "Elements by kind",
        "Non-finite elements on the side of the GELU where they arose: Inf before it points to overflow upstream.",
        target(total(ask.rate(catalog.NONFINITE_ELEMENTS), "kind", "point"), "{{kind}} {{point}}"),
        unit=per_second("elements"),
        size=(8, 8),
    )


def _by_layer(ask: Queries, metric: Metric, title: str, description: str) -> TimeSeries:
    asked = target(total(ask.rate(metric, LAYERS), *BY_LAYER), OF_LAYER)
    return TimeSeries(title, description, [asked], size=(8, 8), unit=per_second("passes"), field=LAYERS_FROM_ZERO)
