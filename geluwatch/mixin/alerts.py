"""The alerts and the recording rules under them, as plain records; `rulefile` writes them down for Prometheus.

One incident is one alert: expressions sum over pods, and layers are named in the annotation, never in the labels.
Annotations are Go templates that Prometheus fills in when a rule fires; there `query` asks the server itself.
"""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.alerting import NUMBER as _NUMBER
from geluwatch.mixin.alerting import PASSES as _PASSES
from geluwatch.mixin.alerting import SUBJECT as _SUBJECT
from geluwatch.mixin.alerting import Alert, Recording
from geluwatch.mixin.alerting import asked as _asked
from geluwatch.mixin.service_alerts import (
    gradients_recording,
    losses_recording,
    out_of_memory,
    out_of_memory_recording,
    training_fault,
)
from geluwatch.mixin.settings import MixinSettings, Tier

DASHBOARD_UID = "geluwatch-overview"
_LISTED_LAYERS = 5
_AGENTS = "{{ with printf `%.0f` $value }}{{ . }} agent{{ if ne . `1` }}s{{ end }}{{ end }}"
_EVIDENCE_FORM, _DISTANCE_FORM = "%.3g", "%.4f"
_BY_INDEX = f"on (layer) group_left () min by (layer) ({queries.series(catalog.LAYER_INDEX, '%[1]s')})"
_HOW_NEAR = {"page": "very close", "ticket": "on its way"}
_BEYOND = {"page": " far enough to page", "ticket": ""}


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


def surprise_recording(settings: MixinSettings) -> Recording:
    """Return the rule that averages the surprise over the pods of a model version.

    That is the geometric mean of their tail probabilities, which is one itself up to a factor of e, however the pods
    depend on each other (Vovk and Wang 2020).
    """
    return Recording(name=f"model_layer_point:{catalog.SURPRISE.name}:avg", expr=queries.drift_surprise(settings))


def agents_recording(settings: MixinSettings) -> Recording:
    """Return the rule that remembers which agents were there."""
    return Recording(name=f"instance_model:{catalog.BUILD_INFO.series}:max{settings.agent_memory}", expr=queries.agents_seen(settings))


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return every recording rule; each stands before the alerts that read it."""
    drift = (evidence_recording(settings), surprise_recording(settings))
    counted = (nonfinite_recording(settings), first_layer_recording(settings), out_of_memory_recording(settings))
    training = (losses_recording(settings), gradients_recording(settings))
    return (*counted, *training, *drift, agents_recording(settings))


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return every alert, pages first; one that has two tiers is there twice under its name."""
    pages = (_nonfinite(settings), out_of_memory(settings), _gross_fault(settings), _overflow(settings, "page"), _drift_page(settings))
    tickets = (
        _drift_ticket(settings),
        _pod_drift(settings),
        _overflow(settings, "ticket"),
        _kernel_mismatch(settings),
        training_fault(settings),
    )
    return (*pages, *tickets, _agent_missing(settings), _baseline_missing(settings))


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
            f"{_SUBJECT} had NaN or Inf in {_PASSES} within {settings.rate_window}"
            f"{{{{ with query (printf `{order}` $mine) }}}}, first at layer {{{{ . | first | label `layer` }}}}{{{{ end }}}}."
        ),
        expr=f"{nonfinite_recording(settings).name} > 0",
        hold="0m",
        keep_firing_for=settings.keep_firing_for,
    )


def _gross_fault(settings: MixinSettings) -> Alert:
    faults = f"sort(0 * max by (layer, fault) ({queries.series(catalog.GROSS, '%[1]s')} == 1) + {_BY_INDEX})"
    means = "{{ if eq $seen.Labels.fault `dead` }}always the same or every gate closed{{ else }}values that no GELU gives{{ end }}"
    return Alert(
        name="GeluwatchGrossFault",
        tier="page",
        summary="A layer of a model is dead or gives values that no GELU gives.",
        description="\n".join(
            [
                f"{{{{- $faults := {_asked(faults)} -}}}}",
                f"{_SUBJECT} is grossly wrong, by the model's order:",
                f"{{{{- range $place, $seen := $faults }}}}{{{{ if lt $place {_LISTED_LAYERS} }}}}",
                f"{{{{ $seen.Labels.layer }}}}: {{{{ $seen.Labels.fault }}}}, {means}",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=queries.gross_faults(settings, nonfinite_recording(settings).name),
        hold=settings.page_for,
        keep_firing_for=settings.keep_firing_for,
    )


def _overflow(settings: MixinSettings, tier: Tier) -> Alert:
    alarm = f"max by (layer) ({queries.series(catalog.OVERFLOW, '%[1]s')}) == 1"
    layers = f"sort(min by (layer) ({queries.series(catalog.LAYER_INDEX, '%[1]s')}) and on (layer) ({alarm}))"
    left = _reading(f"min({queries.series(catalog.HEADROOM, '%s', 'layer=%q')})", "%.1f")
    time = _asked(f"min({queries.series(catalog.OVERFLOW_TIME, '%s', 'layer=%q')})", "$mine $layer.Labels.layer")
    when = f"{{{{ with {time} }}}}, none in about {{{{ . | first | value | humanizeDuration }}}} at the present rate{{{{ end }}}}"
    return Alert(
        name="GeluwatchOverflowAhead",
        tier=tier,
        summary="Activations of a model grow towards what their dtype can hold.",
        description="\n".join(
            [
                f"{{{{- $layers := {_asked(layers)} -}}}}",
                f"{_SUBJECT} is {_HOW_NEAR[tier]} to an overflow, by the model's order:",
                f"{{{{- range $place, $layer := $layers }}}}{{{{ if lt $place {_LISTED_LAYERS} }}}}",
                f"{{{{ $layer.Labels.layer }}}}: {left} bits of headroom left{when}",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=queries.overflow_ahead(settings, nonfinite_recording(settings).name, tier),
        hold=settings.page_for,
        keep_firing_for=settings.keep_firing_for,
    )


def _kernel_mismatch(settings: MixinSettings) -> Alert:
    found = f"sort(0 * max by (layer, declared, measured) ({queries.series(catalog.KERNEL_MISMATCH, '%[1]s')} == 1) + {_BY_INDEX})"
    error = _asked(f"max({queries.series(catalog.KERNEL_ERROR, '%s', 'layer=%q')})", "$mine $seen.Labels.layer")
    size = f"{{{{ with {error} }}}}, off by {{{{ . | first | value | printf `%.3g` }}}} units of last place{{{{ end }}}}"
    return Alert(
        name="GeluwatchKernelMismatch",
        tier="ticket",
        summary="A GELU of a model computes another formula or precision than it declares.",
        description="\n".join(
            [
                f"{{{{- $found := {_asked(found)} -}}}}",
                f"{_SUBJECT} does not compute the GELUs that it declares, by the model's order:",
                f"{{{{- range $place, $seen := $found }}}}{{{{ if lt $place {_LISTED_LAYERS} }}}}",
                f"{{{{ $seen.Labels.layer }}}}: declared {{{{ $seen.Labels.declared }}}}, measured {{{{ $seen.Labels.measured }}}}{size}",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=queries.kernel_mismatches(settings),
        hold=settings.drift_for,
        keep_firing_for=settings.keep_firing_for,
    )


def _drift_page(settings: MixinSettings) -> Alert:
    expr = queries.drift_beyond(settings, surprise_recording(settings).name, "page")
    return _drift(settings, "page", expr, settings.page_for)


def _drift_ticket(settings: MixinSettings) -> Alert:
    return _drift(settings, "ticket", f"max {queries.by(*queries.GROUP)} ({evidence_recording(settings).name}) >= 1", settings.drift_for)


def _drift(settings: MixinSettings, tier: Tier, expr: str, hold: str) -> Alert:
    evidence = evidence_recording(settings).name
    layers = f"sort(min by (layer) ({queries.series(catalog.LAYER_INDEX, '%[1]s')}) and on (layer) ({evidence}{{%[1]s}} >= 1))"
    strength = f"max(avg by (point) ({queries.known(catalog.EVIDENCE, '%s', 'layer=%q')}))"
    distance = f"max(avg by (point) ({queries.known(catalog.KS, '%s', 'layer=%q')}))"
    drifted = f"{_SUBJECT} has drifted from its baseline{_BEYOND[tier]}{_share_of_pods()}{_first_drift()}"
    return Alert(
        name="GeluwatchActivationDrift",
        tier=tier,
        summary="Activations of a model have moved away from the armed baseline.",
        description="\n".join(
            [
                f"{{{{- $layers := {_asked(layers)} -}}}}",
                f"{drifted} It drifts in {{{{ len $layers }}}} of its layers, by the model's order:",
                f"{{{{- range $place, $layer := $layers }}}}{{{{ if lt $place {_LISTED_LAYERS} }}}}",
                f"{{{{ $layer.Labels.layer }}}}: evidence {_reading(strength, _EVIDENCE_FORM)}, KS {_reading(distance, _DISTANCE_FORM)}",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=expr,
        hold=hold,
        keep_firing_for=settings.keep_firing_for,
    )


def _share_of_pods() -> str:
    """Return a template that says how many of several pods drift, since one of them alone can be strong enough for all."""
    each = f"max by (instance) ({queries.series(catalog.EVIDENCE, '%s')})"
    drifting, pods = _asked(f"count({each} >= 1)"), _asked(f"count({each} > -Inf) > 1")
    counted = f"{{{{ $pods := . }}}}{{{{ with {drifting} }}}} on {_NUMBER} of {{{{ with $pods }}}}{_NUMBER}{{{{ end }}}} pods{{{{ end }}}}"
    return f"{{{{ with {pods} }}}}{counted}{{{{ end }}}}"


def _first_drift() -> str:
    """Return a template that names the layer that most pods say the drift began at, the earlier one of two, and its scope."""
    order = f"on (layer) group_left () min by (layer) ({queries.series(catalog.LAYER_INDEX, '%[1]s')}) / 1e6"
    first = f"sort_desc(count by (layer, scope) ({queries.series(catalog.FIRST_DRIFT, '%[1]s')} == 1) - {order})"
    traffic = "Most layers moved alike, so the traffic is likelier to have changed than the model."
    model = "The other layers did not move alike, so the model is likelier to have changed than the traffic."
    scope = f"{{{{ if eq .Labels.scope `traffic` }}}}{traffic}{{{{ else }}}}{model}{{{{ end }}}}"
    named = f", first at layer {{{{ .Labels.layer }}}}. {scope}"
    return f"{{{{ with {_asked(first)} }}}}{{{{ with first . }}}}{named}{{{{ end }}}}{{{{ else }}}}.{{{{ end }}}}"


def _pod_drift(settings: MixinSettings) -> Alert:
    pods = f"count(max by (instance) ({queries.known(catalog.SURPRISE, '%[1]s')}))"
    counted = f"{{{{ with {_asked(pods, '$fleet')} }}}} ({_NUMBER} pods){{{{ end }}}}"
    stray = f"{_SUBJECT} strays from its baseline on pod {{{{ $labels.instance }}}}, not as a whole{counted}"
    return Alert(
        name="GeluwatchPodDrift",
        tier="ticket",
        summary="One pod of a model strays from its baseline while the others do not.",
        description=f"{_matchers(queries.GROUP, '$fleet')}\n{stray}{_most_surprising(settings)}.",
        expr=queries.stray_pods(settings, evidence_recording(settings).name),
        hold=settings.drift_for,
        keep_firing_for=settings.keep_firing_for,
        labels=queries.POD,
    )


def _most_surprising(settings: MixinSettings) -> str:
    """Return a template that names a pod's most surprising layer, and sets its surprise beside that of all pods."""
    order = f"on (layer) min by (layer) ({queries.series(catalog.LAYER_INDEX, '%[2]s')}) / 1e6"
    layers = f"sort_desc(max by (layer) ({queries.series(catalog.SURPRISE, '%[1]s')}) - {order})"
    own = _reading(f"max({queries.series(catalog.SURPRISE, '%s', 'layer=%q')})", _EVIDENCE_FORM)
    mean = _reading(f"max({surprise_recording(settings).name}{{%s,layer=%q}})", _EVIDENCE_FORM, "$fleet")
    named = f", most at layer {{{{ $layer.Labels.layer }}}}: surprise {own} there, {mean} as the mean of all pods"
    first = f"{{{{ if eq $place 0 }}}}{named}{{{{ end }}}}"
    return f"{{{{ range $place, $layer := {_asked(layers, '$mine $fleet')} }}}}{first}{{{{ end }}}}"


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
            f"{_SUBJECT} has taken traffic for {settings.baseline_missing_for} without an armed baseline on {_AGENTS}: "
            "drift goes unseen there. NaN and Inf still page."
        ),
        expr=queries.baseline_missing(settings),
        hold=settings.baseline_missing_for,
    )


def _reading(expression: str, form: str, about: str = "$mine") -> str:
    """Return a template that writes the value of an expression about labels and `$layer`, or a question mark."""
    asked = _asked(expression, f"{about} $layer.Labels.layer")
    return f"{{{{ with {asked} }}}}{{{{ . | first | value | printf `{form}` }}}}{{{{ else }}}}?{{{{ end }}}}"


def _matchers(labels: tuple[str, ...], name: str = "$mine") -> str:
    """Return the template that sets a variable; a label that is absent has to match as empty, which `%q` of nothing does."""
    pattern = ",".join(f"{label}=%q" for label in labels)
    values = " ".join(f"$labels.{label}" for label in labels)
    return f"{{{{- {name} := printf `{pattern}` {values} -}}}}"


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
