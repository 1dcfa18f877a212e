"""How often a model is right, as far as the application tells: it drops, or quantising the model has cost too much of it."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP
from geluwatch.mixin.rules.alerting import SUBJECT, Alert, Recording, asked
from geluwatch.mixin.rules.usual import usual
from geluwatch.mixin.settings import MixinSettings

_SIGMAS = 3
"""Standard deviations that the share of wrong answers may be off by chance."""


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules."""
    return (
        accuracy_recording(settings),
        wrong_recording(settings),
        usual_accuracy_recording(settings),
        usual_wrong_recording(settings),
    )


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_accuracy_drop(settings), _quantized(settings))


def accuracy_recording(settings: MixinSettings) -> Recording:
    """Return the rule that averages the accuracy of the last evaluation over the pods of a model version."""
    return Recording(
        name=f"model:{catalog.ACCURACY.name}:avg", expr=queries.mean(queries.known(catalog.ACCURACY, settings.selector), *GROUP)
    )


def wrong_recording(settings: MixinSettings) -> Recording:
    """Return the rule that records the share of wrong predictions; absent while the application learns of none."""
    wrong, all_of_them = _predictions(catalog.WRONG_PREDICTIONS, "rate", settings), _predictions(catalog.PREDICTIONS, "rate", settings)
    return Recording(name=f"model:{catalog.WRONG_PREDICTIONS.name}:ratio", expr=queries.chain(wrong, "/", f"({all_of_them} > 0)"))


def usual_accuracy_recording(settings: MixinSettings) -> Recording:
    """Return the rule that records what the accuracy of evaluations usually is."""
    return Recording(name=f"model:{catalog.ACCURACY.name}:usual", expr=usual(accuracy_recording(settings).name, settings))


def usual_wrong_recording(settings: MixinSettings) -> Recording:
    """Return the rule that records what the share of wrong predictions usually is."""
    return Recording(name=f"model:{catalog.WRONG_PREDICTIONS.name}:usual", expr=usual(wrong_recording(settings).name, settings))


def _accuracy_drop(settings: MixinSettings) -> Alert:
    share = "{{ . | first | value | humanizePercentage }}"
    told = {
        "The last evaluation found an accuracy of": (accuracy_recording(settings).name, usual_accuracy_recording(settings).name),
        "Of its predictions in traffic these were wrong:": (wrong_recording(settings).name, usual_wrong_recording(settings).name),
    }
    lines = [
        f"{{{{ with {asked(f'{now}{{%s}}')} }}}} {what} {share}"
        f"{{{{ with {asked(f'{before}{{%s}}')} }}}}, usually {share}{{{{ end }}}}.{{{{ end }}}}"
        for what, (now, before) in told.items()
    ]
    return Alert(
        name="GeluwatchAccuracyDrop",
        tier="ticket",
        owner="model",
        summary="A model is right less often than it usually is.",
        description=f"{SUBJECT} is right less often than usual.{''.join(lines)}",
        expr=_dropped(settings),
        hold=settings.service_for,
        keep_firing_for=settings.keep_firing_for,
    )


def _quantized(settings: MixinSettings) -> Alert:
    allowed = settings.thresholds.quantized_drop
    return Alert(
        name="GeluwatchQuantizedAccuracy",
        tier="ticket",
        owner="model",
        summary="A quantised model is less accurate than its original by more than is allowed.",
        description=(
            f"{SUBJECT} is right in {{{{ $value | humanizePercentage }}}} fewer of all cases than the original that it was quantised from; "
            f"up to {allowed * 100:g}% is allowed."
        ),
        expr=f"-{queries.smallest(queries.known(catalog.QUANTIZED_DELTA, settings.selector), *GROUP)} > {allowed:g}",
        hold="0m",
        keep_firing_for=settings.keep_firing_for,
    )


def _dropped(settings: MixinSettings) -> str:
    """Return the model versions that are right less often than usual, by how much.

    Evaluations and predictions in traffic are different questions, so each is held to its own past. A share of wrong
    predictions among n is off by chance; it has to be beyond that as well, or few predictions would raise tickets.
    The `1 / n` keeps a model that was never wrong from being judged by a single mistake.
    """
    drop = f"{settings.thresholds.accuracy_drop:g}"
    accuracy = f"({usual_accuracy_recording(settings).name} - {accuracy_recording(settings).name}) > {drop}"
    before, number = usual_wrong_recording(settings).name, f"({_predictions(catalog.PREDICTIONS, 'increase', settings)} > 0)"
    chance = f"{_SIGMAS} * sqrt(({before} * (1 - {before}) + 1 / {number}) / {number})"
    wrong = queries.chain(f"({wrong_recording(settings).name} - {before})", ">", f"({drop} + {chance})")
    return f"{accuracy}\nor\n{wrong}"


def _predictions(metric: catalog.Metric, function: str, settings: MixinSettings) -> str:
    return queries.total(f"{function}({queries.series(metric, settings.selector)}[{settings.rate_window}])", *GROUP)
