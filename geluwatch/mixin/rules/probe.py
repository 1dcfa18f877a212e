"""A model that is not the one that its baseline was recorded on, by the probe."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP
from geluwatch.mixin.rules.alerting import LISTED_LAYERS, NUMBER, SUBJECT, Alert, Recording, asked, reading
from geluwatch.mixin.rules.nonfinite import BY_INDEX
from geluwatch.mixin.settings import MixinSettings


def recordings(_: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules: none."""
    return ()


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_model_changed(settings),)


def _model_changed(settings: MixinSettings) -> Alert:
    first = f"max by (layer, point) ({queries.series(catalog.PROBE_FIRST, '%[1]s')}) >= bool 0"
    layers = f"sort(0 * ({first}) + {BY_INDEX})"
    size = reading(f"max({queries.series(catalog.PROBE_FIRST, '%s', 'layer=%q')})", "%.2g")
    place = "{{ if eq $layer.Labels.point `pre` }}in front of its GELU{{ else }}at its GELU{{ end }}"
    changed = f"{SUBJECT} is not the model that its baseline was recorded on{_share_of_pods()}"
    return Alert(
        name="GeluwatchModelChanged",
        tier="ticket",
        owner="model",
        summary="A model gives other values for its probe than when its baseline was recorded.",
        description="\n".join(
            [
                f"{{{{- $layers := {asked(layers)} -}}}}",
                f"{changed}: the same inputs give other values, first at:",
                f"{{{{- range $place, $layer := $layers }}}}{{{{ if lt $place {LISTED_LAYERS} }}}}",
                f"{{{{ $layer.Labels.layer }}}}, {place}: they differ by {size} of their size",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=queries.largest(f"{queries.series(catalog.PROBE_MOVED, settings.selector)} == 1", *GROUP),
        hold=settings.page_for,
        keep_firing_for=settings.keep_firing_for,
    )


def _share_of_pods() -> str:
    """Return a template that says on how many pods, of several that have replayed their probe."""
    each = f"max by (instance) ({queries.series(catalog.PROBE_MOVED, '%s')})"
    moved, pods = asked(f"count({each} == 1)"), asked(f"count({each}) > 1")
    counted = f"{{{{ $pods := . }}}}{{{{ with {moved} }}}} on {NUMBER} of {{{{ with $pods }}}}{NUMBER}{{{{ end }}}} pods{{{{ end }}}}"
    return f"{{{{ with {pods} }}}}{counted}{{{{ end }}}}"
