"""Baselines that are missing, mixed or stale."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP
from geluwatch.mixin.rules import fleet
from geluwatch.mixin.rules.alerting import SUBJECT, Alert, Recording, asked
from geluwatch.mixin.settings import MixinSettings, seconds

FOLLOWING = "following"
"""What the baseline of an agent that follows a training run is called; it moves along, and is no two agents' own."""

_AGENTS = "{{ with printf `%.0f` $value }}{{ . }} agent{{ if ne . `1` }}s{{ end }}{{ end }}"


def recordings(_: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules: none."""
    return ()


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_baseline_missing(settings), _baseline_mixed(settings), _baseline_stale(settings))


def _baseline_missing(settings: MixinSettings) -> Alert:
    return Alert(
        name="GeluwatchBaselineMissing",
        tier="ticket",
        owner="model",
        summary="A model takes traffic without an armed baseline.",
        description=(
            f"{SUBJECT} has taken traffic for {settings.baseline_missing_for} without an armed baseline on {_AGENTS}: "
            "drift goes unseen there. NaN and Inf still page."
        ),
        expr=_unarmed(settings),
        hold=settings.baseline_missing_for,
    )


def _baseline_mixed(settings: MixinSettings) -> Alert:
    baselines = asked(f'sort_desc(count_values by (baseline) ("recorded", {_armed("%[1]s")}))')
    each = "{{ .Labels.baseline }}, recorded {{ .Labels.recorded | humanizeTimestamp }}"
    pods = "{{ with printf `%.0f` .Value }}{{ . }} pod{{ if ne . `1` }}s{{ end }}{{ end }}"
    several = "{{ if gt (len $baselines) 1 }}is measured by {{ len $baselines }} baselines"
    edges = "{{ else }}and its baseline differ in their edges at {{ $value | printf `%.0f` }} of its points{{ end }}"
    unknown = "so the distance of all pods together from the baseline is not known"
    return Alert(
        name="GeluwatchBaselineMixed",
        tier="ticket",
        owner="model",
        summary="Pods of one model version are not measured by one baseline.",
        description="\n".join(
            [
                f"{{{{- $baselines := {baselines} -}}}}",
                f"{SUBJECT} {several}{edges}, {unknown}. Its pods have armed:",
                "{{- range $baselines }}",
                f"{each}: {pods}",
                "{{- end }}",
            ]
        ),
        expr=_mixed(settings),
        hold=settings.rollout_window,
    )


def _baseline_stale(settings: MixinSettings) -> Alert:
    oldest = asked(f"sort(min by (baseline) ({_armed('%[1]s')}))")
    named = f"{{{{ with {oldest} }}}}{{{{ with first . }}}} {{{{ .Labels.baseline }}}}{{{{ end }}}}{{{{ end }}}}"
    return Alert(
        name="GeluwatchBaselineStale",
        tier="ticket",
        owner="model",
        summary="The baseline that a model is measured by is old.",
        description=(
            f"{SUBJECT} is measured by baseline{named}, recorded {{{{ $value | humanizeDuration }}}} ago; "
            f"after {settings.baseline_age} what was normal then may no longer be what is normal now."
        ),
        expr=_stale(settings),
        hold=settings.service_for,
    )


def _armed(where: str) -> str:
    """Return when the armed baseline of each agent was recorded; one that follows a training run has none."""
    named = queries.series(catalog.BASELINE_INFO, where, f'baseline!="{FOLLOWING}"')
    return f"{queries.series(catalog.BASELINE_TIME, where)} * ignoring (baseline) group_right () {named}"


def _mixed(settings: MixinSettings) -> str:
    """Return how many baselines a model version has, where there are several; or at how many points edges lack a partner."""
    recorded = f'count_values {queries.by(*GROUP)} ("recorded", {_armed(settings.selector)})'
    several = f"{queries.number(recorded, *GROUP)} > 1"
    lacking = queries.chain(fleet.EDGES, "unless", f"({fleet.MATCHED} == {fleet.EDGES})", f"and on ({', '.join(GROUP)})", fleet.BASELINE)
    return f"({several})\nor\n{queries.number(lacking, *GROUP)}"


def _stale(settings: MixinSettings) -> str:
    """Return the age in seconds of the oldest baseline of a model version that takes traffic, where it is too old."""
    age = f"{queries.largest(f'time() - ({_armed(settings.selector)})', *GROUP)} > {seconds(settings.baseline_age)}"
    traffic = f"increase({queries.series(catalog.FORWARDS, settings.selector)}[{settings.usual_range}]) > 0"
    return queries.chain(f"({age})", f"and on ({', '.join(GROUP)})", f"({traffic})")


def _unarmed(settings: MixinSettings) -> str:
    """Return how many agents of a model version take traffic without an armed baseline."""
    unarmed = f"{queries.series(catalog.BASELINE_ARMED, settings.selector)} == 0"
    traffic = f"increase({queries.series(catalog.FORWARDS, settings.selector)}[{settings.baseline_missing_for}]) > 0"
    return queries.number(queries.chain(f"({unarmed})", "and", f"({traffic})"), *GROUP)
