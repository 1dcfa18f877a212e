"""The row of NaN and Inf: how often, where first, of what kind, how far."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin.overview.parts import BY_LAYER, LAYERS, LAYERS_FROM_ZERO, OF_LAYER, OF_MODEL, Queries, Row, amounts
from geluwatch.mixin.panels import RED, Bars, TimeSeries, steps, target
from geluwatch.mixin.queries import GROUP, total


def row(ask: Queries) -> Row:
    """Return the row of NaN and Inf."""
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
    return Row("NaN and Inf", (_passes(ask), _first(ask), _kinds(ask), spread, padding))


def _passes(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Forward passes with NaN or Inf",
        "Every forward pass is checked. Zero is healthy; anything else pages.",
        [target(total(ask.rate(catalog.NONFINITE_FORWARDS), *GROUP), OF_MODEL)],
        size=(8, 8),
        unit="cps",
        field={"min": 0, "color": {"mode": "fixed", "fixedColor": RED}},
        custom={"fillOpacity": 20},
        links=ask.runbook("GeluwatchNonFiniteActivations"),
    )


def _first(ask: Queries) -> Bars:
    return Bars(
        "First layer with NaN or Inf",
        "Forward passes of the shown time range by the layer in which the values appeared first: look there.",
        [target(f"sort_desc({total(ask.grown(catalog.SITE_FIRST_NONFINITE), 'model', 'layer')})", OF_LAYER, instant=True)],
        size=(8, 8),
        field={"min": 0, "decimals": 0, "noValue": "None", "thresholds": steps(RED)},
        links=ask.runbook("GeluwatchNonFiniteActivations"),
    )


def _kinds(ask: Queries) -> TimeSeries:
    return amounts(
        "Elements by kind",
        "Non-finite elements on the side of the GELU where they arose: Inf before it points to overflow upstream.",
        target(total(ask.rate(catalog.NONFINITE_ELEMENTS), "kind", "point"), "{{kind}} {{point}}"),
        unit="cps",
        size=(8, 8),
    )


def _by_layer(ask: Queries, metric: Metric, title: str, description: str) -> TimeSeries:
    asked = target(total(ask.rate(metric, LAYERS), *BY_LAYER), OF_LAYER)
    return TimeSeries(title, description, [asked], size=(12, 7), unit="cps", field=LAYERS_FROM_ZERO)
