"""Alerts about how a model is run, not what its activations are: memory that runs out, training that goes wrong."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.alerting import NUMBER, PASSES, SUBJECT, Alert, Recording, asked
from geluwatch.mixin.settings import MixinSettings


def out_of_memory_recording(settings: MixinSettings) -> Recording:
    """Return the rule that counts the forward passes that ran out of memory, by pod."""
    name = f"instance_model:{catalog.OUT_OF_MEMORY.name}:increase{settings.rate_window}"
    return Recording(name=name, expr=queries.out_of_memory_passes(settings))


def losses_recording(settings: MixinSettings) -> Recording:
    """Return the rule that counts the losses of a model version that were no number."""
    name = f"model:{catalog.NONFINITE_LOSSES.name}:increase{settings.rate_window}"
    return Recording(name=name, expr=queries.nonfinite_losses(settings))


def gradients_recording(settings: MixinSettings) -> Recording:
    """Return the rule that counts backward passes by the layer whose gradient was the first that was not finite."""
    name = f"model_layer:{catalog.SITE_FIRST_GRADIENTS.name}:increase{settings.rate_window}"
    return Recording(name=name, expr=queries.first_nonfinite_gradients(settings))


def out_of_memory(settings: MixinSettings) -> Alert:
    """Return the page for forward passes that ran out of memory."""
    recorded = out_of_memory_recording(settings).name
    counted = f"{NUMBER} pod{{{{ if gt (. | first | value) 1.0 }}}}s{{{{ end }}}}"
    pods = f"{{{{ with {asked(f'count({recorded}{{%s}} > 0)')} }}}}, on {counted}{{{{ end }}}}"
    return Alert(
        name="GeluwatchOutOfMemory",
        tier="page",
        summary="Forward passes of a model run out of memory.",
        description=f"{SUBJECT} ran out of memory in {PASSES} within {settings.rate_window}{pods}.",
        expr=f"{queries.total(recorded, *queries.GROUP)} > 0",
        hold="0m",
        keep_firing_for=settings.keep_firing_for,
    )


def training_fault(settings: MixinSettings) -> Alert:
    """Return the ticket for a training run that meets values that are no numbers."""
    losses, gradients = losses_recording(settings).name, gradients_recording(settings).name
    counts = {
        "steps with a NaN or an Inf as loss": f"{losses}{{%s}} > 0",
        "steps skipped in a row": f"max({queries.skipped_in_a_row('%s')})",
        "backward passes with a NaN or an Inf in a gradient": f"sum({gradients}{{%s}}) > 0",
    }
    lines = [f"{{{{- with {asked(expr)} }}}}\n{what}: {NUMBER}{{{{- end }}}}" for what, expr in counts.items()]
    named = ", most of them first at layer {{ . | first | label `layer` }}"
    first = f"{{{{- with {asked(f'sort_desc({gradients}{{%s}} > 0)')} }}}}{named}{{{{- end }}}}"
    return Alert(
        name="GeluwatchTrainingFault",
        tier="ticket",
        summary="A training run meets losses or gradients that are no numbers.",
        description=f"{SUBJECT} has not trained as it should within {settings.rate_window}:{''.join(lines)}{first}",
        expr=queries.training_faults(settings, losses, gradients),
        hold="0m",
        keep_firing_for=settings.keep_firing_for,
    )
