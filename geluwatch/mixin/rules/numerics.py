"""Arithmetic: an overflow that lies ahead, and kernels that compute something else than they declare."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP
from geluwatch.mixin.rules.alerting import LISTED_LAYERS, SUBJECT, Alert, Recording, asked, lasting, reading
from geluwatch.mixin.rules.nonfinite import BY_INDEX, nonfinite_recording
from geluwatch.mixin.settings import MixinSettings, Tier

_HOW_NEAR = {"page": "very close", "ticket": "on its way"}


def recordings(_: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules: none."""
    return ()


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_overflow(settings, "page"), _overflow(settings, "ticket"), _kernel_mismatch(settings))


def _overflow(settings: MixinSettings, tier: Tier) -> Alert:
    alarm = f"max by (layer) ({queries.series(catalog.OVERFLOW, '%[1]s')}) == 1"
    layers = f"sort(min by (layer) ({queries.series(catalog.LAYER_INDEX, '%[1]s')}) and on (layer) ({alarm}))"
    left = reading(f"min({queries.series(catalog.HEADROOM, '%s', 'layer=%q')})", "%.1f")
    time = asked(f"min({queries.series(catalog.OVERFLOW_TIME, '%s', 'layer=%q')})", "$mine $layer.Labels.layer")
    when = f"{{{{ with {time} }}}}, none in about {{{{ . | first | value | humanizeDuration }}}} at the present rate{{{{ end }}}}"
    return Alert(
        name="GeluwatchOverflowAhead",
        tier=tier,
        owner="model",
        summary="Activations of a model grow towards what their dtype can hold.",
        description="\n".join(
            [
                f"{{{{- $layers := {asked(layers)} -}}}}",
                f"{SUBJECT} is {_HOW_NEAR[tier]} to an overflow, by the model's order:",
                f"{{{{- range $place, $layer := $layers }}}}{{{{ if lt $place {LISTED_LAYERS} }}}}",
                f"{{{{ $layer.Labels.layer }}}}: {left} bits of headroom left{when}",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=_overflow_ahead(settings, nonfinite_recording(settings).name, tier),
        hold=settings.page_for,
        keep_firing_for=lasting(settings, 3 if tier == "page" else 2),
    )


def _kernel_mismatch(settings: MixinSettings) -> Alert:
    found = f"sort(0 * max by (layer, declared, measured) ({queries.series(catalog.KERNEL_MISMATCH, '%[1]s')} == 1) + {BY_INDEX})"
    error = asked(f"max({queries.series(catalog.KERNEL_ERROR, '%s', 'layer=%q')})", "$mine $seen.Labels.layer")
    size = f"{{{{ with {error} }}}}, off by {{{{ . | first | value | printf `%.3g` }}}} units of last place{{{{ end }}}}"
    return Alert(
        name="GeluwatchKernelMismatch",
        tier="ticket",
        owner="model",
        summary="A GELU of a model computes another formula or precision than it declares.",
        description="\n".join(
            [
                f"{{{{- $found := {asked(found)} -}}}}",
                f"{SUBJECT} does not compute the GELUs that it declares, by the model's order:",
                f"{{{{- range $place, $seen := $found }}}}{{{{ if lt $place {LISTED_LAYERS} }}}}",
                f"{{{{ $seen.Labels.layer }}}}: declared {{{{ $seen.Labels.declared }}}}, measured {{{{ $seen.Labels.measured }}}}{size}",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=_kernel_mismatches(settings),
        hold=settings.drift_for,
        keep_firing_for=settings.keep_firing_for,
    )


def _overflow_ahead(settings: MixinSettings, nonfinite: str, tier: Tier) -> str:
    """Return the model versions with an overflow ahead; as a page those where it is near.

    Once there is a NaN or an Inf it has come, and pages by that.

    Args:
        settings: Which targets to look at.
        nonfinite: The recorded series of `nonfinite_passes`.
        tier: How near.
    """
    near = ('tier="page"',) if tier == "page" else ()
    ahead = queries.timely(f"{queries.series(catalog.OVERFLOW, settings.selector, *near)} == 1", settings)
    return f"{queries.largest(ahead, *GROUP)}\nunless\n  ({nonfinite} > 0)"


def _kernel_mismatches(settings: MixinSettings) -> str:
    """Return the model versions with a layer whose kernel is not the one that it declares."""
    return queries.largest(f"{queries.series(catalog.KERNEL_MISMATCH, settings.selector)} == 1", *GROUP)
