"""Memory that runs out."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP, POD
from geluwatch.mixin.rules.alerting import NUMBER, PASSES, SUBJECT, Alert, Recording, asked
from geluwatch.mixin.settings import MixinSettings


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules."""
    return (out_of_memory_recording(settings),)


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_out_of_memory(settings),)


def out_of_memory_recording(settings: MixinSettings) -> Recording:
    """Return the rule that counts the forward passes that ran out of memory, by pod."""
    name = f"instance_model:{catalog.OUT_OF_MEMORY.name}:increase{settings.rate_window}"
    return Recording(name=name, expr=_out_of_memory_passes(settings))


def _out_of_memory(settings: MixinSettings) -> Alert:
    """Return the page for forward passes that ran out of memory."""
    recorded = out_of_memory_recording(settings).name
    counted = f"{NUMBER} pod{{{{ if gt (. | first | value) 1.0 }}}}s{{{{ end }}}}"
    pods = f"{{{{ with {asked(f'count({recorded}{{%s}} > 0)')} }}}}, on {counted}{{{{ end }}}}"
    return Alert(
        name="GeluwatchOutOfMemory",
        tier="page",
        owner="infrastructure",
        summary="Forward passes of a model run out of memory.",
        description=f"{SUBJECT} ran out of memory in {PASSES} within {settings.rate_window}{pods}.",
        expr=f"{queries.total(recorded, *GROUP)} > 0",
        hold="0m",
        keep_firing_for=settings.keep_firing_for,
    )


def _out_of_memory_passes(settings: MixinSettings) -> str:
    """Return the forward passes that ran out of memory within the rate window, by pod; absent when none."""
    return queries.total(queries.recent(catalog.OUT_OF_MEMORY, settings), *POD)
