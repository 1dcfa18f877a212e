"""How often the models are right, as the application tells."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import OF_MODEL, ONLY_THIS_MODEL, Queries, Row, amounts
from geluwatch.mixin.dashboards.rows.latency import failure_share
from geluwatch.mixin.panels import LINE_AT_THRESHOLD, NEUTRAL, RED, Stat, TimeSeries, dashed, judged, steps, target
from geluwatch.mixin.queries import GROUP, mean, smallest, total

_NOT_REPORTED = "Not reported"


def row(ask: Queries) -> Row:
    """Return the row of how often the models are right."""
    return Row("Quality", (accuracy(ask), errors(ask), _predictions(ask)), collapsed=True)


def lost(ask: Queries) -> Stat:
    """Return the tile with how far accuracy is below its usual."""
    drop = ask.settings.thresholds.accuracy_drop
    now, usual = (ask.rule(name) for name in ask.recorded.accuracy)
    worst = f"clamp_min(-{smallest(f'{now} - {usual}')}, 0)"
    return Stat(
        "Accuracy lost",
        f"How far the accuracy of the last evaluation is below what it usually is, of the model version that has lost most; "
        f"{drop:.0%} is a ticket.",
        [target(worst, "lost")],
        size=(3, 4),
        unit="percentunit",
        field={"decimals": 1, "noValue": _NOT_REPORTED, "thresholds": judged((drop, RED))},
        options={"textMode": "value"},
        links=ask.runbook("AccuracyDrop"),
    )


def accuracy(ask: Queries) -> TimeSeries:
    """Return the accuracy of evaluations and from where it has dropped."""
    drop = ask.settings.thresholds.accuracy_drop
    now, usual = (ask.rule(name) for name in ask.recorded.accuracy)
    return TimeSeries(
        "Accuracy",
        f"Accuracy of the last evaluation that the application reported. Dashed: {drop:.0%} below its usual of the last "
        f"{ask.settings.usual_range}, from where it is a ticket.",
        [target(now, OF_MODEL), target(f"{usual} - {drop:g}", f"{OF_MODEL} limit")],
        size=(8, 8),
        unit="percentunit",
        field={**ONLY_THIS_MODEL, "max": 1, "noValue": _NOT_REPORTED},
        overrides=[dashed(".* limit$")],
        links=ask.runbook("AccuracyDrop"),
    )


def errors(ask: Queries) -> TimeSeries:
    """Return the shares of wrong predictions and of failed passes."""
    wrong, usual = (ask.rule(name) for name in ask.recorded.error_rate)
    return TimeSeries(
        "Error rate",
        "Share of predictions that were wrong, where the application learns of it, and of forward passes that raised. Dashed: what the "
        "share of wrong predictions usually is.",
        [target(wrong, f"{OF_MODEL} wrong"), target(usual, f"{OF_MODEL} usual"), target(failure_share(ask), f"{OF_MODEL} failed")],
        size=(8, 8),
        unit="percentunit",
        field={**ONLY_THIS_MODEL, "min": 0, "noValue": _NOT_REPORTED},
        overrides=[dashed(".* usual$")],
        links=ask.runbook("AccuracyDrop", "ErrorBudgetBurn"),
    )


def _predictions(ask: Queries) -> TimeSeries:
    known, wrong = (total(ask.rate(metric), *GROUP) for metric in (catalog.PREDICTIONS, catalog.WRONG_PREDICTIONS))
    return amounts(
        "Judged predictions",
        "Predictions of which the application learned whether they were right, and the wrong ones. Few of them make the error rate rough.",
        target(known, f"{OF_MODEL} judged"),
        target(wrong, f"{OF_MODEL} wrong"),
        unit="cps",
        size=(8, 8),
    )


def quantised(ask: Queries) -> TimeSeries:
    """Return what quantising has cost in accuracy."""
    drop = ask.settings.thresholds.quantized_drop
    return TimeSeries(
        "Accuracy of the quantised model against the original",
        f"Accuracy of the quantised model minus the original's on the same data, as last reported. Below the line at {-drop:.0%} it is a "
        "ticket.",
        [target(mean(ask.known(catalog.QUANTIZED_DELTA), *GROUP), OF_MODEL)],
        size=(8, 8),
        unit="percentunit",
        field={**ONLY_THIS_MODEL, "noValue": _NOT_REPORTED, "thresholds": steps(RED, (-drop, NEUTRAL))},
        custom=LINE_AT_THRESHOLD,
        links=ask.runbook("QuantizedAccuracy"),
    )
