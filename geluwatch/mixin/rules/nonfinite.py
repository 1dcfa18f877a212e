"""Values that are not numbers, and layers that are grossly wrong without them: what wakes somebody whatever the baseline says."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP, POD
from geluwatch.mixin.rules.alerting import LISTED_LAYERS, PASSES, SUBJECT, Alert, Recording, asked, lasting
from geluwatch.mixin.settings import MixinSettings

BY_INDEX = f"on (layer) group_left () min by (layer) ({queries.series(catalog.LAYER_INDEX, '%[1]s')})"
"""In a template: joins layers with their places in the model's order."""


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules."""
    return (nonfinite_recording(settings), first_layer_recording(settings))


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_nonfinite(settings), _gross_fault(settings))


def nonfinite_recording(settings: MixinSettings) -> Recording:
    """Return the rule that counts the non-finite forward passes of a model version."""
    name = f"model:{catalog.NONFINITE_FORWARDS.name}:increase{settings.rate_window}"
    return Recording(name=name, expr=_nonfinite_passes(settings))


def first_layer_recording(settings: MixinSettings) -> Recording:
    """Return the rule that counts them by the layer in which the values appeared first."""
    name = f"model_layer:{catalog.SITE_FIRST_NONFINITE.name}:increase{settings.rate_window}"
    return Recording(name=name, expr=_first_nonfinite_passes(settings))


def _nonfinite(settings: MixinSettings) -> Alert:
    first = first_layer_recording(settings).name
    index = queries.series(catalog.LAYER_INDEX, "%[1]s")
    # The index is read back over a window, because the pod that met the values may be dead by the time of the page.
    order = f"sort_desc(round({first}{{%[1]s}}) - on (layer) min by (layer) (last_over_time({index}[{settings.rate_window}])) / 1e6)"
    return Alert(
        name="GeluwatchNonFiniteActivations",
        tier="page",
        owner="model",
        summary="A model computes NaN or Inf activations.",
        description=(
            f"{SUBJECT} had NaN or Inf in {PASSES} within {settings.rate_window}"
            f"{{{{ with query (printf `{order}` $mine) }}}}, first at layer {{{{ . | first | label `layer` }}}}{{{{ end }}}}."
        ),
        expr=f"{nonfinite_recording(settings).name} > 0",
        hold="0m",
        keep_firing_for=settings.keep_firing_for,
    )


def _gross_fault(settings: MixinSettings) -> Alert:
    faults = f"sort(0 * max by (layer, fault) ({queries.series(catalog.GROSS, '%[1]s')} == 1) + {BY_INDEX})"
    means = "{{ if eq $seen.Labels.fault `dead` }}always the same or every gate closed{{ else }}values that no GELU gives{{ end }}"
    return Alert(
        name="GeluwatchGrossFault",
        tier="page",
        owner="model",
        summary="A layer of a model is dead or gives values that no GELU gives.",
        description="\n".join(
            [
                f"{{{{- $faults := {asked(faults)} -}}}}",
                f"{SUBJECT} is grossly wrong, by the model's order:",
                f"{{{{- range $place, $seen := $faults }}}}{{{{ if lt $place {LISTED_LAYERS} }}}}",
                f"{{{{ $seen.Labels.layer }}}}: {{{{ $seen.Labels.fault }}}}, {means}",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=_gross_faults(settings, nonfinite_recording(settings).name),
        hold=settings.page_for,
        keep_firing_for=lasting(settings, 2),
    )


def _nonfinite_passes(settings: MixinSettings) -> str:
    """Return the forward passes with a NaN or an Inf within the rate window, by model version; absent when none."""
    return queries.total(queries.recent(catalog.NONFINITE_FORWARDS, settings), *GROUP)


def _first_nonfinite_passes(settings: MixinSettings) -> str:
    """Return the same by the layer in which the values appeared first."""
    return queries.total(queries.recent(catalog.SITE_FIRST_NONFINITE, settings), *GROUP, "layer")


def _gross_faults(settings: MixinSettings, nonfinite: str) -> str:
    """Return the model versions with a layer that is grossly wrong.

    A fault that the baseline has as well is not news; the agent knows, and its verdict is then no page. Where there
    is a NaN or an Inf, that is the cause, pages already, and leaves the layers behind it looking dead.

    Args:
        settings: Which targets to look at.
        nonfinite: The recorded series of `nonfinite_passes`.
    """
    fault = f"({queries.series(catalog.GROSS, settings.selector)} == 1)"
    verdict = queries.series(catalog.VERDICT, settings.selector, 'verdict="page"')
    news = queries.chain(queries.timely(fault, settings), f"and on ({', '.join(POD)})", f"({verdict} == 1)")
    return f"{queries.largest(news, *GROUP)}\nunless\n  ({nonfinite} > 0)"
