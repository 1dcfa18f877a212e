"""GELUs that lose their curve: gates closed or open for far more values than in the baseline, as when weights have grown."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP
from geluwatch.mixin.rules.alerting import LISTED_LAYERS, SUBJECT, Alert, Recording, asked, reading
from geluwatch.mixin.rules.nonfinite import BY_INDEX
from geluwatch.mixin.settings import MixinSettings

CLOSED_BELOW, OPEN_ABOVE = -3.0, 3.0
"""Where a gate counts as closed or open: edges of the histogram before the GELU, so that the baseline's share is known there."""


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules."""
    return (closed_recording(settings), open_recording(settings))


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_saturation(settings),)


def closed_recording(settings: MixinSettings) -> Recording:
    """Return the rule that tells by how much more of its gates are closed than in the baseline, by layer."""
    return _excess(settings, catalog.GATE_CLOSED, _below(settings, CLOSED_BELOW))


def open_recording(settings: MixinSettings) -> Recording:
    """Return the rule that tells by how much more of its gates are open than in the baseline, by layer."""
    return _excess(settings, catalog.GATE_OPEN, f"(1 - {_below(settings, OPEN_ABOVE)})")


def _saturation(settings: MixinSettings) -> Alert:
    recorded = {"closed": closed_recording(settings).name, "open": open_recording(settings).name}
    gates = {"closed": catalog.GATE_CLOSED, "open": catalog.GATE_OPEN}
    found = " or ".join(f"({name}{{%[1]s}} >= {settings.thresholds.saturation:g})" for name in recorded.values())
    compared = "Shares of closed and of open gates, with their change since the baseline, by the model's order:"
    shares = ", ".join(f"{state} {_share(gates[state], name)}" for state, name in recorded.items())
    return Alert(
        name="GeluwatchSaturation",
        tier="ticket",
        owner="model",
        summary="Far more gates of a model are closed or open than in its baseline.",
        description="\n".join(
            [
                f"{{{{- $layers := {asked(f'sort(0 * ({found}) + {BY_INDEX})')} -}}}}",
                f"{SUBJECT} saturates in {{{{ len $layers }}}} of its layers. {compared}",
                f"{{{{- range $place, $layer := $layers }}}}{{{{ if lt $place {LISTED_LAYERS} }}}}",
                f"{{{{ $layer.Labels.layer }}}}: {shares}",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=_saturated(settings, *recorded.values()),
        hold=settings.drift_for,
        keep_firing_for=settings.keep_firing_for,
    )


def _share(gate: Metric, excess: str) -> str:
    """Return the template that writes a layer's share of closed or of open gates, and its change since the baseline."""
    share = reading(f"avg({queries.known(gate, '%s', 'layer=%q')})", "%.2f")
    return f"{share} ({reading(f'{excess}{{%s,layer=%q}}', '%+.2f')})"


def _excess(settings: MixinSettings, gate: Metric, usual: str) -> Recording:
    """Return the rule that averages over pods what a gate's share has gained on the pod's own baseline; absent without one."""
    share = queries.timely(f"({queries.known(gate, settings.selector)})", settings)
    return Recording(
        name=f"model_layer:{gate.name}:excess",
        expr=queries.mean(queries.chain(share, "- ignoring (point, le)", usual), *GROUP, "layer"),
    )


def _below(settings: MixinSettings, edge: float) -> str:
    """Return the baseline's share of values before the GELU up to an edge."""
    return queries.series(catalog.BASELINE_CDF, settings.selector, 'point="pre"', f'le="{edge}"')


def _saturated(settings: MixinSettings, closed: str, opened: str) -> str:
    """Return how many layers of a model version have gained too many closed or open gates.

    Args:
        settings: What is too many.
        closed: The recorded series of `closed_recording`.
        opened: That of `open_recording`.
    """
    least = f"{settings.thresholds.saturation:g}"
    return queries.number(queries.chain(f"({closed} >= {least})", "or", f"({opened} >= {least})"), *GROUP)
