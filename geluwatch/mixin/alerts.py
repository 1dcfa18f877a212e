"""The alerts and the recording rules under them, as plain records; `rulefile` writes them down for Prometheus.

One incident is one alert: expressions sum over pods, and layers are named in the annotation, never in the labels.
Annotations are Go templates that Prometheus fills in when a rule fires; there `query` asks the server itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.settings import MixinSettings, Tier

DASHBOARD_UID = "geluwatch-overview"
_LISTED_LAYERS = 5
_SUBJECT = "Model {{ $labels.model }} version {{ $labels.model_version }}"
_COUNT = "{{ printf `%.0f` $value }}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One recording rule, named level:metric:operation."""

    name: str
    expr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alerting rule, before its tier becomes a severity and its links are added."""

    name: str
    tier: Tier
    summary: str
    """What happened, in one sentence without variables."""
    description: str
    """What happened to whom: a Go template, in which `$mine` holds the matchers of the alert's own labels."""
    expr: str
    hold: str
    """How long the expression must hold: the rule's `for`."""
    keep_firing_for: str | None = None
    labels: tuple[str, ...] = queries.GROUP
    """Labels that tell one incident from another."""


def nonfinite_recording(settings: MixinSettings) -> Recording:
    """Return the rule that counts the non-finite forward passes of a model version."""
    name = f"model:{catalog.NONFINITE_FORWARDS.name}:increase{settings.rate_window}"
    return Recording(name=name, expr=queries.nonfinite_passes(settings))


def first_layer_recording(settings: MixinSettings) -> Recording:
    """Return the rule that counts them by the layer in which the values appeared first."""
    name = f"model_layer:{catalog.SITE_FIRST_NONFINITE.name}:increase{settings.rate_window}"
    return Recording(name=name, expr=queries.first_nonfinite_passes(settings))


def evidence_recording(settings: MixinSettings) -> Recording:
    """Return the rule that averages the evidence of drift over the pods of a model version."""
    return Recording(name=f"model_layer_point:{catalog.EVIDENCE.name}:avg", expr=queries.drift_evidence(settings))


def agents_recording(settings: MixinSettings) -> Recording:
    """Return the rule that remembers which agents were there."""
    return Recording(name=f"instance_model:{catalog.BUILD_INFO.series}:max{settings.agent_memory}", expr=queries.agents_seen(settings))


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return every recording rule; each stands before the alerts that read it."""
    return (nonfinite_recording(settings), first_layer_recording(settings), evidence_recording(settings), agents_recording(settings))


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return every alert, pages first."""
    return (_nonfinite(settings), _drift(settings), _agent_missing(settings), _baseline_missing(settings))


def rule_annotations(alert: Alert, settings: MixinSettings) -> dict[str, str]:
    """Return the annotations of an alert, as the templates that Prometheus expands."""
    asks = "$mine" in alert.description
    return {
        "summary": alert.summary,
        "description": f"{_matchers(alert.labels)}\n{alert.description}" if asks else alert.description,
        "runbook_url": _runbook_url(alert, settings),
        "dashboard_url": _dashboard_url(settings),
    }


def severity(alert: Alert, settings: MixinSettings) -> str:
    """Return the value of the alert's `severity` label."""
    return settings.severities[alert.tier]


def _nonfinite(settings: MixinSettings) -> Alert:
    first = first_layer_recording(settings).name
    index = queries.series(catalog.LAYER_INDEX, "%[1]s")
    # The index is read back over a window, because the pod that met the values may be dead by the time of the page.
    order = f"sort_desc(round({first}{{%[1]s}}) - on (layer) min by (layer) (last_over_time({index}[{settings.rate_window}])) / 1e6)"
    return Alert(
        name="GeluwatchNonFiniteActivations",
        tier="page",
        summary="A model computes NaN or Inf activations.",
        description=(
            f"{_SUBJECT} had NaN or Inf in {_COUNT} forward passes within {settings.rate_window}"
            f"{{{{ with query (printf `{order}` $mine) }}}}, first at layer {{{{ . | first | label `layer` }}}}{{{{ end }}}}."
        ),
        expr=f"{nonfinite_recording(settings).name} > 0",
        hold="0m",
        keep_firing_for=settings.keep_firing_for,
    )


def _drift(settings: MixinSettings) -> Alert:
    evidence = evidence_recording(settings).name
    layers = f"sort(min by (layer) ({queries.series(catalog.LAYER_INDEX, '%[1]s')}) and on (layer) ({evidence}{{%[1]s}} >= 1))"
    strength = f"max({evidence}{{%s,layer=%q}})"
    distance = f"max(avg by (point) ({queries.known(catalog.KS, '%s', 'layer=%q')}))"
    return Alert(
        name="GeluwatchActivationDrift",
        tier="ticket",
        summary="Activations of a model have moved away from the armed baseline.",
        description="\n".join(
            [
                f"{{{{- $layers := query (printf `{layers}` $mine) -}}}}",
                f"{_SUBJECT} has drifted from its baseline in {{{{ len $layers }}}} of its layers, by the model's order:",
                f"{{{{- range $place, $layer := $layers }}}}{{{{ if lt $place {_LISTED_LAYERS} }}}}",
                f"{{{{ $layer.Labels.layer }}}}: evidence {_reading(strength, '%.2f')}, KS {_reading(distance, '%.4f')}",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=f"max {queries.by(*queries.GROUP)} ({evidence}) >= 1",
        hold=settings.drift_for,
        keep_firing_for=settings.keep_firing_for,
    )


def _agent_missing(settings: MixinSettings) -> Alert:
    return Alert(
        name="GeluwatchAgentMissing",
        tier="ticket",
        summary="A model that is expected to be watched is not.",
        description=(
            "{{ with $labels.model }}Model {{ . }} of job {{ $labels.job }} has lost an agent that it had within "
            f"{settings.agent_memory}{{{{ else }}}}A target of job {{{{ $labels.job }}}} carries no agent{{{{ end }}}}: "
            "there is a target without geluwatch metrics, and NaN, Inf or drift there go unseen."
        ),
        expr=queries.agents_missing(settings, agents_recording(settings).name),
        hold=settings.agent_missing_for,
        labels=queries.MODEL_GROUP,
    )


def _baseline_missing(settings: MixinSettings) -> Alert:
    return Alert(
        name="GeluwatchBaselineMissing",
        tier="ticket",
        summary="A model takes traffic without an armed baseline.",
        description=(
            f"{_SUBJECT} has taken traffic for {settings.baseline_missing_for} without an armed baseline on {_COUNT} agents: "
            "drift goes unseen there. NaN and Inf still page."
        ),
        expr=queries.baseline_missing(settings),
        hold=settings.baseline_missing_for,
    )


def _reading(expression: str, form: str) -> str:
    """Return a template that writes the value of an expression about `$mine` and `$layer`, or a question mark."""
    asked = f"query (printf `{expression}` $mine $layer.Labels.layer)"
    return f"{{{{ with {asked} }}}}{{{{ . | first | value | printf `{form}` }}}}{{{{ else }}}}?{{{{ end }}}}"


def _matchers(labels: tuple[str, ...]) -> str:
    """Return the template that sets `$mine`; a label that is absent has to match as empty, which `%q` of nothing does."""
    pattern = ",".join(f"{label}=%q" for label in labels)
    values = " ".join(f"$labels.{label}" for label in labels)
    return f"{{{{- $mine := printf `{pattern}` {values} -}}}}"


def _runbook_url(alert: Alert, settings: MixinSettings) -> str:
    """Return the link to the runbook: the published one, else one that opens from an agent's own listener.

    The agent is one of the alert's own model where there is any left, else any agent; the last resort is the path in
    the repository.
    """
    if settings.runbook_base is not None:
        return f"{settings.runbook_base.rstrip('/')}/{alert.name}"
    agent = catalog.BUILD_INFO.series
    return (
        f"{_matchers(alert.labels)}{{{{ with or (query (printf `{agent}{{%s}}` $mine)) (query `{agent}`) }}}}"
        f"http://{{{{ . | first | label `instance` }}}}/runbooks/{alert.name}{{{{ else }}}}runbooks/{alert.name}.md{{{{ end }}}}"
    )


def _dashboard_url(settings: MixinSettings) -> str:
    base = (settings.dashboard_base or "").rstrip("/")
    return (
        f"{base}/d/{DASHBOARD_UID}?var-job={{{{ $labels.job | urlquery }}}}"
        "{{ with $labels.model }}&var-model={{ . | urlquery }}{{ end }}"
    )
