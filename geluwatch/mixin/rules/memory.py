"""Memory that runs out, or is about to."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP, POD
from geluwatch.mixin.rules.alerting import NUMBER, PASSES, SUBJECT, Alert, Recording, asked
from geluwatch.mixin.settings import MixinSettings

_LISTED_PODS = 5
"""Pods and devices that a text names at most."""


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules."""
    return (out_of_memory_recording(settings), share_recording(settings))


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_out_of_memory(settings), _pressure(settings))


def out_of_memory_recording(settings: MixinSettings) -> Recording:
    """Return the rule that counts the forward passes that ran out of memory, by pod."""
    name = f"instance_model:{catalog.OUT_OF_MEMORY.name}:increase{settings.rate_window}"
    return Recording(name=name, expr=_out_of_memory_passes(settings))


def share_recording(settings: MixinSettings) -> Recording:
    """Return the rule that records the share of memory in use, by pod and device; the host's has no device.

    What all processes that share the limit use counts, for it is at their sum that the kernel ends one of them.
    """
    shares = (
        f"{queries.series(used, settings.selector)} / ({queries.series(limit, settings.selector)} > 0)"
        for used, limit in ((catalog.MEMORY_USED, catalog.MEMORY_LIMIT), (catalog.DEVICE_MEMORY, catalog.DEVICE_LIMIT))
    )
    expr = queries.largest("\nor\n".join(f"({share})" for share in shares), *POD, "device")
    return Recording(name="instance_model:geluwatch_memory_used:ratio", expr=expr)


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
        # As long as the errors that it made still burn the budget fast enough to page for them again.
        keep_firing_for=settings.burn_windows[1],
    )


def _pressure(settings: MixinSettings) -> Alert:
    """Return the ticket for memory that is nearly used up."""
    recorded, limit = share_recording(settings).name, f"{settings.thresholds.memory_share:g}"
    fullest = asked(f"sort_desc({recorded}{{%s}} > {limit})")
    device = "{{ with $seen.Labels.device }} {{ . }}{{ else }} host memory{{ end }}"
    return Alert(
        name="GeluwatchMemoryPressure",
        tier="ticket",
        owner="infrastructure",
        summary="A model has nearly used up the memory of a pod or a device.",
        description="\n".join(
            [
                f"{{{{- $fullest := {fullest} -}}}}",
                f"{SUBJECT} has nearly used up its memory, the fullest first:",
                f"{{{{- range $place, $seen := $fullest }}}}{{{{ if lt $place {_LISTED_PODS} }}}}",
                f"{{{{ $seen.Labels.instance }}}}{device}: {{{{ $seen.Value | humanizePercentage }}}}",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=f"{queries.largest(recorded, *GROUP)} > {limit}",
        hold=settings.service_for,
        keep_firing_for=settings.keep_firing_for,
    )


def _out_of_memory_passes(settings: MixinSettings) -> str:
    """Return the forward passes that ran out of memory within the rate window, by pod; absent when none."""
    return queries.total(queries.recent(catalog.OUT_OF_MEMORY, settings), *POD)
