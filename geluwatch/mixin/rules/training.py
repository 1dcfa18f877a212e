"""Training that meets losses or gradients that are no numbers."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP
from geluwatch.mixin.rules.alerting import NUMBER, SUBJECT, Alert, Recording, asked
from geluwatch.mixin.settings import MixinSettings

_SKIPPED_IN_A_ROW = 16
"""Halvings after which a loss scale of 65536, the default, is 1: what is still not finite is no overflow of scaled gradients."""


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules."""
    return (losses_recording(settings), gradients_recording(settings))


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_training_fault(settings),)


def losses_recording(settings: MixinSettings) -> Recording:
    """Return the rule that counts the losses of a model version that were no number."""
    name = f"model:{catalog.NONFINITE_LOSSES.name}:increase{settings.rate_window}"
    return Recording(name=name, expr=_nonfinite_losses(settings))


def gradients_recording(settings: MixinSettings) -> Recording:
    """Return the rule that counts backward passes by the layer whose gradient was the first that was not finite."""
    name = f"model_layer:{catalog.SITE_FIRST_GRADIENTS.name}:increase{settings.rate_window}"
    return Recording(name=name, expr=_first_nonfinite_gradients(settings))


def _training_fault(settings: MixinSettings) -> Alert:
    """Return the ticket for a training run that meets values that are no numbers."""
    losses, gradients = losses_recording(settings).name, gradients_recording(settings).name
    counts = {
        "steps with a NaN or an Inf as loss": f"{losses}{{%s}} > 0",
        "steps skipped in a row": f"max({_skipped_in_a_row('%s')})",
        "backward passes with a NaN or an Inf in a gradient": f"sum({gradients}{{%s}}) > 0",
    }
    lines = [f"{{{{- with {asked(expr)} }}}}\n{what}: {NUMBER}{{{{- end }}}}" for what, expr in counts.items()]
    named = ", most of them first at layer {{ . | first | label `layer` }}"
    first = f"{{{{- with {asked(f'sort_desc({gradients}{{%s}} > 0)')} }}}}{named}{{{{- end }}}}"
    return Alert(
        name="GeluwatchTrainingFault",
        tier="ticket",
        owner="model",
        summary="A training run meets losses or gradients that are no numbers.",
        description=f"{SUBJECT} has not trained as it should within {settings.rate_window}:{''.join(lines)}{first}",
        expr=_training_faults(settings, losses, gradients),
        hold="0m",
        keep_firing_for=settings.keep_firing_for,
    )


def _nonfinite_losses(settings: MixinSettings) -> str:
    """Return the training steps with a loss that was no number within the rate window, by model version; absent when none."""
    return queries.total(queries.recent(catalog.NONFINITE_LOSSES, settings), *GROUP)


def _first_nonfinite_gradients(settings: MixinSettings) -> str:
    """Return the backward passes with a non-finite gradient within the rate window, by the layer where it was first met."""
    return queries.total(queries.recent(catalog.SITE_FIRST_GRADIENTS, settings), *GROUP, "layer")


def _skipped_in_a_row(where: str) -> str:
    """Return the steps that loss scalers have skipped in a row, where that is too many."""
    return f"{queries.series(catalog.SKIPPED_IN_A_ROW, where)} >= {_SKIPPED_IN_A_ROW}"


def _training_faults(settings: MixinSettings, losses: str, gradients: str) -> str:
    """Return the model versions whose training goes wrong.

    Non-finite gradients are a fault only where no loss scaler is there to skip the step: with one they are its daily bread.

    Args:
        settings: Which targets to look at.
        losses: The recorded series of `nonfinite_losses`.
        gradients: The recorded series of `first_nonfinite_gradients`.
    """
    skipped = queries.largest(_skipped_in_a_row(settings.selector), *GROUP)
    scaled = f"unless on ({', '.join(GROUP)}) {queries.largest(queries.series(catalog.LOSS_SCALE, settings.selector), *GROUP)}"
    return f"({losses} > 0)\nor\n{skipped}\nor\n(({queries.total(gradients, *GROUP)} > 0) {scaled})"
