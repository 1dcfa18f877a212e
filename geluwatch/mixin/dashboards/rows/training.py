"""Training: gradients, losses and the loss scale."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import BY_LAYER, BY_POD, LAYERS, LAYERS_FROM_ZERO, OF_AGENT, OF_LAYER, OF_MODEL, Queries, Row, amounts
from geluwatch.mixin.panels import RED, TimeSeries, per_second, target
from geluwatch.mixin.queries import GROUP, largest, total


def row(ask: Queries) -> Row:
    """Return the row of training."""
    return Row("Training", (faults(ask), _gradients(ask), _first(ask), _steps(ask), _scale(ask), _row_of_skips(ask)), collapsed=True)


def faults(ask: Queries) -> TimeSeries:
    """Return the losses that are no number."""
    return TimeSeries(
        "Losses that are no number",
        "Training steps whose loss was NaN or Inf.",
        [target(total(ask.rate(catalog.NONFINITE_LOSSES), *GROUP), OF_MODEL)],
        size=(8, 8),
        unit=per_second("steps"),
        field={"min": 0, "color": {"mode": "fixed", "fixedColor": RED}},
        links=ask.runbook("TrainingFault"),
    )


def _gradients(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Backward passes with NaN or Inf",
        "By layer in whose gradient the values were, where gradients are watched. With a loss scaler some are normal: the step is skipped.",
        [target(total(ask.rate(catalog.SITE_GRADIENTS, LAYERS), *BY_LAYER), OF_LAYER)],
        size=(8, 8),
        unit=per_second("passes"),
        field=LAYERS_FROM_ZERO,
    )


def _first(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "First layer on the way back",
        "Backward passes by the layer nearest to the loss whose gradient held the values: they arose between it and the loss.",
        [target(total(ask.rate(catalog.SITE_FIRST_GRADIENTS, LAYERS), *BY_LAYER), OF_LAYER)],
        size=(8, 8),
        unit=per_second("passes"),
        field=LAYERS_FROM_ZERO,
    )


def _steps(ask: Queries) -> TimeSeries:
    return amounts(
        "Training steps",
        "Steps noted, and those that the loss scaler skipped.",
        target(total(ask.rate(catalog.TRAINING_STEPS), *GROUP), f"{OF_MODEL} steps"),
        target(total(ask.rate(catalog.SKIPPED_STEPS), *GROUP), f"{OF_MODEL} skipped"),
        unit=per_second("steps"),
    )


def _scale(ask: Queries) -> TimeSeries:
    scale = target(largest(ask.gauge(catalog.LOSS_SCALE), *BY_POD), OF_AGENT)
    return amounts("Loss scale", "Halved at each skipped step, doubled after two thousand good ones by default.", scale, unit="short")


def _row_of_skips(ask: Queries) -> TimeSeries:
    skipped = target(largest(ask.gauge(catalog.SKIPPED_IN_A_ROW), *BY_POD), OF_AGENT)
    return amounts(
        "Steps skipped in a row",
        "From 16 on the scale is not to blame any more, and it is a ticket.",
        skipped,
        unit="short",
        links=ask.runbook("TrainingFault"),
    )
