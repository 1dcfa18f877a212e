"""Drift of a whole model version and of one pod beside the others."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP, POD
from geluwatch.mixin.rules.alerting import LISTED_LAYERS, NUMBER, SUBJECT, Alert, Recording, asked, lasting, matchers, reading
from geluwatch.mixin.settings import MixinSettings, Tier

_EVIDENCE_FORM, _DISTANCE_FORM = "%.3g", "%.4f"
_BEYOND = {"page": " far enough to page", "ticket": ""}
_LEAST_PODS = 2

# A pod that is far out by itself must not carry the mean of its fleet: what a pod counts for is capped at about twice the
# limits, which lie between 5 and 8. Smaller surprises only make the mean more cautious.
MOST_EVIDENCE = 2
_MOST_SURPRISE = 15


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules."""
    return (evidence_recording(settings), surprise_recording(settings))


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_drift_page(settings), _drift_ticket(settings), _pod_drift(settings))


def evidence_recording(settings: MixinSettings) -> Recording:
    """Return the rule that averages the evidence of drift over the pods of a model version."""
    return Recording(name=f"model_layer_point:{catalog.EVIDENCE.name}:avg", expr=_drift_evidence(settings))


def surprise_recording(settings: MixinSettings) -> Recording:
    """Return the rule that averages the surprise over the pods of a model version.

    That is the geometric mean of their tail probabilities, which is one itself up to a factor of e, however the pods
    depend on each other (Vovk and Wang 2020).
    """
    return Recording(name=f"model_layer_point:{catalog.SURPRISE.name}:avg", expr=_drift_surprise(settings))


def _drift_page(settings: MixinSettings) -> Alert:
    expr = _drift_beyond(settings, surprise_recording(settings).name, "page")
    return _drift(settings, "page", expr, settings.page_for)


def _drift_ticket(settings: MixinSettings) -> Alert:
    return _drift(settings, "ticket", f"max {queries.by(*GROUP)} ({evidence_recording(settings).name}) >= 1", settings.drift_for)


def _drift(settings: MixinSettings, tier: Tier, expr: str, hold: str) -> Alert:
    evidence = evidence_recording(settings).name
    layers = f"sort(min by (layer) ({queries.series(catalog.LAYER_INDEX, '%[1]s')}) and on (layer) ({evidence}{{%[1]s}} >= 1))"
    strength = f"max(avg by (point) ({queries.series(catalog.EVIDENCE, '%s', 'layer=%q')} >= 1))"
    distance = f"max(avg by (point) ({queries.known(catalog.KS, '%s', 'layer=%q')}))"
    drifted = f"{SUBJECT} has drifted from its baseline{_BEYOND[tier]}{_share_of_pods()}{_first_drift()}{_probe()}"
    return Alert(
        name="GeluwatchActivationDrift",
        tier=tier,
        owner="model",
        summary="Activations of a model have moved away from the armed baseline.",
        description="\n".join(
            [
                f"{{{{- $layers := {asked(layers)} -}}}}",
                f"{drifted} It drifts in {{{{ len $layers }}}} of its layers, by the model's order:",
                f"{{{{- range $place, $layer := $layers }}}}{{{{ if lt $place {LISTED_LAYERS} }}}}",
                f"{{{{ $layer.Labels.layer }}}}: evidence {reading(strength, _EVIDENCE_FORM)}, KS {reading(distance, _DISTANCE_FORM)}",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=expr,
        hold=hold,
        # Evidence passes the ticket's limit last on its way down; without this the ticket would come out behind the page.
        keep_firing_for=lasting(settings, 1 if tier == "page" else 0),
    )


def _share_of_pods() -> str:
    """Return a template that says how many of several pods drift, since one of them alone can be strong enough for all."""
    each = f"max by (instance) ({queries.series(catalog.EVIDENCE, '%s')})"
    drifting, pods = asked(f"count({each} >= 1)"), asked(f"count({each} > -Inf) > 1")
    counted = f"{{{{ $pods := . }}}}{{{{ with {drifting} }}}} on {NUMBER} of {{{{ with $pods }}}}{NUMBER}{{{{ end }}}} pods{{{{ end }}}}"
    return f"{{{{ with {pods} }}}}{counted}{{{{ end }}}}"


def _first_drift() -> str:
    """Return a template that names the layer that most pods say the drift began at, the earlier one of two, and its scope."""
    order = f"on (layer) group_left () min by (layer) ({queries.series(catalog.LAYER_INDEX, '%[1]s')}) / 1e6"
    first = f"sort_desc(count by (layer, scope) ({queries.series(catalog.FIRST_DRIFT, '%[1]s')} == 1) - {order})"
    traffic = "Most layers moved alike, so the traffic is likelier to have changed than the model."
    model = "The other layers did not move alike, so the model is likelier to have changed than the traffic."
    unknown = "The layers do not tell whether the traffic changed or the model."
    otherwise = f"{{{{ else if eq .Labels.scope `model` }}}}{model}{{{{ else }}}}{unknown}{{{{ end }}}}"
    scope = f"{{{{ if eq .Labels.scope `traffic` }}}}{traffic}{otherwise}"
    named = f", first at layer {{{{ .Labels.layer }}}}. {scope}"
    return f"{{{{ with {asked(first)} }}}}{{{{ with first . }}}}{named}{{{{ end }}}}{{{{ else }}}}.{{{{ end }}}}"


def _probe() -> str:
    """Return a template that says what probes tell of a drift: those of pods that replayed theirs since it began there."""
    order = f"on (layer) group_left () min by (layer) ({queries.series(catalog.LAYER_INDEX, '%[1]s')}) / 1e6"
    moved = f"sort_desc(count by (layer) ({queries.series(catalog.PROBE_FIRST, '%[1]s')}) - {order})"
    times = f"max by (instance) ({queries.series(catalog.PROBE_TIME, '%[1]s')})"
    since = f"{times} >= on (instance) min by (instance) ({queries.series(catalog.ONSET, '%[1]s')})"
    model = "{{ with first . }} The probe says: the model changed, first at layer {{ .Labels.layer }}.{{ end }}"
    data = " The probe says: the data changed, the model did not."
    unknown = " No probe has been replayed since it began: watch.probe() tells whether the data changed or the model."
    otherwise = f"{{{{ with {asked(since)} }}}}{data}{{{{ else }}}}{unknown}{{{{ end }}}}"
    return f"{{{{ with {asked(moved)} }}}}{model}{{{{ else }}}}{otherwise}{{{{ end }}}}"


def _pod_drift(settings: MixinSettings) -> Alert:
    pods = f"count(max by (instance) ({queries.known(catalog.SURPRISE, '%[1]s')}))"
    counted = f"{{{{ with {asked(pods, '$fleet')} }}}} ({NUMBER} pods){{{{ end }}}}"
    stray = f"{SUBJECT} strays from its baseline on pod {{{{ $labels.instance }}}}, not as a whole{counted}"
    return Alert(
        name="GeluwatchPodDrift",
        tier="ticket",
        owner="model",
        summary="One pod of a model strays from its baseline while the others do not.",
        description=f"{matchers(GROUP, '$fleet')}\n{stray}{_most_surprising(settings)}.",
        expr=_stray_pods(settings, evidence_recording(settings).name),
        hold=settings.drift_for,
        keep_firing_for=settings.keep_firing_for,
        labels=POD,
    )


def _most_surprising(settings: MixinSettings) -> str:
    """Return a template that names a pod's most surprising layer, and sets its surprise beside that of all pods."""
    order = f"on (layer) min by (layer) ({queries.series(catalog.LAYER_INDEX, '%[2]s')}) / 1e6"
    layers = f"sort_desc(max by (layer) ({queries.series(catalog.SURPRISE, '%[1]s')}) - {order})"
    own = reading(f"max({queries.series(catalog.SURPRISE, '%s', 'layer=%q')})", _EVIDENCE_FORM)
    mean = reading(f"max({surprise_recording(settings).name}{{%s,layer=%q}})", _EVIDENCE_FORM, "$fleet")
    named = f", most at layer {{{{ $layer.Labels.layer }}}}: surprise {own} there, {mean} as the mean of all pods"
    first = f"{{{{ if eq $place 0 }}}}{named}{{{{ end }}}}"
    return f"{{{{ range $place, $layer := {asked(layers, '$mine $fleet')} }}}}{first}{{{{ end }}}}"


def _drift_evidence(settings: MixinSettings) -> str:
    """Return the evidence of drift by layer and point, averaged over the pods of a model version; no pod counts for more than two."""
    return _mean_of_pods(settings, catalog.EVIDENCE, MOST_EVIDENCE)


def _drift_surprise(settings: MixinSettings) -> str:
    """Return the surprise by layer and point, averaged over the pods of a model version; no pod counts for more than two."""
    return _mean_of_pods(settings, catalog.SURPRISE, _MOST_SURPRISE)


def _mean_of_pods(settings: MixinSettings, metric: Metric, most: float) -> str:
    judged = queries.timely(queries.known(metric, settings.selector), settings)
    return queries.mean(f"clamp_max({judged}, {most})", *GROUP, "layer", "point")


def _drift_limit(settings: MixinSettings, tier: Tier) -> str:
    """Return the surprise from which a model version's drift belongs to a tier; absent where no baseline arms it."""
    return queries.largest(queries.series(catalog.LIMIT, settings.selector, f'tier="{tier}"'), *GROUP)


def _drift_beyond(settings: MixinSettings, surprise: str, tier: Tier) -> str:
    """Return the model versions whose mean surprise has reached a tier's limit.

    Args:
        settings: Which targets to look at.
        surprise: The recorded series of `drift_surprise`.
        tier: Whose limit.
    """
    return queries.largest(queries.chain(surprise, f">= on ({', '.join(GROUP)}) group_left ()", _drift_limit(settings, tier)), *GROUP)


def _stray_pods(settings: MixinSettings, evidence: str) -> str:
    """Return the pods that drift while their model version as a whole does not, by how much they pass their limit.

    With N pods there are N chances for one to stray, which costs log10(N) of surprise; one more leaves a margin, for
    the pods' traffic is not the same. Of two pods either may be the odd one: each is held against the baseline, not
    against the other, and the mean of two is too cautious for one of them to be told by it.

    Args:
        settings: Which targets to look at.
        evidence: The recorded series of `drift_evidence`.
    """
    surprise = queries.timely(queries.known(catalog.SURPRISE, settings.selector), settings)
    limit = queries.largest(queries.series(catalog.LIMIT, settings.selector, 'tier="ticket"'), *POD)
    pods = queries.number(surprise, *GROUP, "layer", "point")
    beyond = [
        f"{surprise} - on ({', '.join(POD)}) group_left () {limit}",
        f">= on ({', '.join(GROUP)}, layer, point) group_left ()",
        f"(1 + log10({pods} >= {_LEAST_PODS}))",
    ]
    return f"{queries.largest(queries.chain(*beyond), *POD)}\nunless on ({', '.join(GROUP)})\n  ({queries.largest(evidence, *GROUP)} >= 1)"
