"""How often the models are right, as the application tells."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import OF_MODEL, ONLY_THIS_MODEL, Queries, Row, amounts
from geluwatch.mixin.dashboards.rows.latency import failure_share
from geluwatch.mixin.panels import (
    LINE_AT_THRESHOLD,
    LOWEST_FIRST,
    NEUTRAL,
    RED,
    TEXT,
    Stat,
    TimeSeries,
    dashed,
    judged,
    per_second,
    steps,
    target,
)
from geluwatch.mixin.queries import GROUP, mean, smallest, total

_NOT_REPORTED = "Not reported"
_SIZE = (6, 8)


def row(ask: Queries) -> Row:
    """Return the row of how often the models are right."""
    return Row("Quality", (accuracy(ask), wrong(ask), failed(ask), _predictions(ask)), collapsed=True)


def lost(ask: Queries) -> Stat:
    """Return the tile with how far accuracy is below its usual."""
    drop = ask.settings.thresholds.accuracy_drop
    now, usual = (ask.rule(name) for name in ask.recorded.accuracy)
    worst = f"clamp_min(-{smallest(f'{now} - {usual}')}, 0)"
    return Stat(
        "Accuracy lost",
        f"How far the accuracy of the last evaluation is below what it usually is, of the model version that has lost most; "
        f"{drop:.0%} is a ticket. A model has a usual level after {ask.settings.usual_range} of reports.",
        [target(worst, "lost")],
        size=(3, 4),
        unit="percentunit",
        field={"decimals": 1, "noValue": "No usual level yet", "thresholds": judged((drop, RED))},
        options={"textMode": "value"},
        links=ask.runbook("AccuracyDrop"),
    )


def accuracy(ask: Queries, size: tuple[int, int] = _SIZE) -> TimeSeries:
    """Return the accuracy of evaluations and from where it has dropped."""
    drop = ask.settings.thresholds.accuracy_drop
    now, usual = (ask.rule(name) for name in ask.recorded.accuracy)
    return TimeSeries(
        "Accuracy",
        f"Accuracy of the last evaluation that the application reported. Dashed: {drop:.0%} below its usual of the last "
        f"{ask.settings.usual_range}, from where it is a ticket.",
        [target(now, OF_MODEL), target(f"{usual} - {drop:g}", f"{OF_MODEL} limit")],
        size=size,
        unit="percentunit",
        field={**ONLY_THIS_MODEL, "max": 1, "noValue": _NOT_REPORTED},
        options=LOWEST_FIRST,
        overrides=[dashed(".* limit$")],
        links=ask.runbook("AccuracyDrop"),
    )


def wrong(ask: Queries) -> TimeSeries:
    """Return the share of wrong predictions, and what it usually is."""
    now, usual = (ask.rule(name) for name in ask.recorded.error_rate)
    return TimeSeries(
        "Error rate: wrong predictions",
        "Share of predictions that were wrong, where the application learns of it. Dashed: what it usually is.",
        [target(now, OF_MODEL), target(usual, f"{OF_MODEL} usual")],
        size=_SIZE,
        unit="percentunit",
        field={**ONLY_THIS_MODEL, "min": 0, "noValue": _NOT_REPORTED},
        overrides=[dashed(".* usual$", TEXT)],
        links=ask.runbook("AccuracyDrop"),
    )


def failed(ask: Queries) -> TimeSeries:
    """Return the share of failed passes."""
    return TimeSeries(
        "Error rate: failed passes",
        "Share of forward passes that raised, and so gave no prediction at all.",
        [target(failure_share(ask), OF_MODEL)],
        size=_SIZE,
        unit="percentunit",
        field={**ONLY_THIS_MODEL, "min": 0, "noValue": "No traffic"},
        links=ask.runbook("ErrorBudgetBurn", "OutOfMemory"),
    )


def _predictions(ask: Queries) -> TimeSeries:
    known, mistaken = (total(ask.rate(metric), *GROUP) for metric in (catalog.PREDICTIONS, catalog.WRONG_PREDICTIONS))
    return amounts(
        "Judged predictions",
        "Predictions a second that the application learned to be right or wrong, and the wrong ones. Few make the error rate rough.",
        target(known, f"{OF_MODEL} judged"),
        target(mistaken, f"{OF_MODEL} wrong"),
        unit=per_second(""),
        size=_SIZE,
    )


def quantised(ask: Queries, size: tuple[int, int] = _SIZE) -> TimeSeries:
    """Return what quantising has cost in accuracy."""
    drop = ask.settings.thresholds.quantized_drop
    return TimeSeries(
        "Quantised minus original accuracy",
        f"Accuracy of the quantised model minus the original's on the same data, as last reported. Below the line at {-drop:.0%} it is a "
        "ticket.",
        [target(mean(ask.known(catalog.QUANTIZED_DELTA), *GROUP), OF_MODEL)],
        size=size,
        unit="percentunit",
        options=LOWEST_FIRST,
        field={**ONLY_THIS_MODEL, "noValue": _NOT_REPORTED, "thresholds": steps(RED, (-drop, NEUTRAL))},
        custom={**LINE_AT_THRESHOLD, "axisSoftMax": 0},
        links=ask.runbook("QuantizedAccuracy"),
    )
