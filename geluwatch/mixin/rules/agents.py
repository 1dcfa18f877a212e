"""Agents that are gone, out of order, too dear, or blind to some of the GELUs that they are there for."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.links import AGENTS
from geluwatch.mixin.queries import GROUP, JOB, MODEL_GROUP, POD, TARGET
from geluwatch.mixin.rules.alerting import LISTED_LAYERS, SUBJECT, Alert, Recording, asked
from geluwatch.mixin.rules.nonfinite import BY_INDEX
from geluwatch.mixin.settings import MixinSettings, seconds

_MEMORY_STEPS = 288
_USUAL_WINDOWS = 10
"""How many usual windows' time may pass without one; thin traffic takes longer to fill one."""
_USUAL_TRAFFIC = 3
"""The part of its usual traffic that a pod must still have for its windows to be missed: a third."""
OVER_BUDGET = 1.25
_LEEWAY_SECONDS = 10
"""Wall time whose budget the agent may spend at once."""


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules."""
    return (agents_recording(settings), blind_recording(settings), stalled_recording(settings), cost_recording(settings))


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_agent_missing(settings), _sites_blind(settings), _agent_faulty(settings), _over_budget(settings))


def agents_recording(settings: MixinSettings) -> Recording:
    """Return the rule that remembers which agents were there."""
    return Recording(name=f"instance_model:{catalog.BUILD_INFO.series}:max{settings.agent_memory}", expr=_agents_seen(settings))


def blind_recording(settings: MixinSettings) -> Recording:
    """Return the rule that counts, by layer, the pods that take traffic without seeing it."""
    return Recording(name=f"model_layer:{catalog.SITE_OBSERVED.name}:blind", expr=_blind_layers(settings))


def stalled_recording(settings: MixinSettings) -> Recording:
    """Return the rule that tells how old the last window is where windows no longer close under traffic."""
    return Recording(name=f"instance_model:{catalog.WINDOW_END.name}:stalled", expr=_stalled(settings))


def cost_recording(settings: MixinSettings) -> Recording:
    """Return the rule that tells which share of wall time row capture takes on each pod."""
    spent = f"rate({queries.series(catalog.HOOK_SECONDS, settings.selector)}[{settings.rate_window}])"
    return Recording(name=f"instance_model:{catalog.HOOK_SECONDS.name}:rate{settings.rate_window}", expr=queries.largest(spent, *POD))


def _agent_missing(settings: MixinSettings) -> Alert:
    return Alert(
        name="GeluwatchAgentMissing",
        tier="ticket",
        owner="infrastructure",
        summary="A model that is expected to be watched is not.",
        description=(
            "{{ with $labels.model }}Model {{ . }} of job {{ $labels.job }} has lost an agent that it had within "
            f"{settings.agent_memory}{{{{ else }}}}A target of job {{{{ $labels.job }}}} carries no agent{{{{ end }}}}: "
            "there is a target without geluwatch metrics, and NaN, Inf or drift there go unseen."
        ),
        expr=_agents_missing(settings, agents_recording(settings).name),
        hold=settings.agent_missing_for,
        labels=MODEL_GROUP,
    )


def _sites_blind(settings: MixinSettings) -> Alert:
    blind = blind_recording(settings).name
    pods = asked(f"{blind}{{%s,layer=%q}}", "$mine $layer.Labels.layer")
    counted = f"{{{{ with {pods} }}}}{_counted('. | first | value', 'pod')}{{{{ end }}}}"
    return Alert(
        name="GeluwatchSitesBlind",
        tier="ticket",
        owner="model",
        summary="A model takes traffic while some of its GELUs are not seen.",
        description="\n".join(
            [
                f"{{{{- $layers := {asked(f'sort(0 * {blind}{{%[1]s}} + {BY_INDEX})')} -}}}}",
                f"{SUBJECT} takes traffic that is not seen at {{{{ len $layers }}}} of its GELUs, by the model's order:",
                f"{{{{- range $place, $layer := $layers }}}}{{{{ if lt $place {LISTED_LAYERS} }}}}",
                f"{{{{ $layer.Labels.layer }}}}: blind on {counted}",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=queries.number(blind, *GROUP),
        hold=settings.blind_for,
        dashboard=AGENTS,
    )


def _agent_faulty(settings: MixinSettings) -> Alert:
    window, parts = settings.rate_window, "sum by (instance, part)"
    errors, dropped = (f"increase({queries.series(metric, '%s')}[{window}])" for metric in (catalog.ERRORS, catalog.DROPPED_ROWS))
    flushed = f"increase({queries.series(catalog.FLUSH_SECONDS, '%[1]s')}[{window}])"
    off = f"max by (instance) ({queries.series(catalog.SITE_OBSERVED, '%[1]s')}) == 0"
    faults = {
        f"{parts} ({queries.series(catalog.PART_DISABLED, '%s')}) > 0": "{{ .Labels.part }} is switched off",
        f"{parts} ({errors}) > 0": f"{_counted('.Value', 'error')} in {{{{ .Labels.part }}}} within {window}",
        f"sum by (instance) ({dropped}) > 0": f"{_counted('.Value', 'row')} dropped within {window}",
        f"{stalled_recording(settings).name}{{%s}}": "no window for {{ .Value | humanizeDuration }}",
        f"sum by (instance) ({flushed}) == 0 unless {off}": "its background thread stands still",
    }
    return Alert(
        name="GeluwatchAgentFaulty",
        tier="ticket",
        owner="infrastructure",
        summary="An agent is there but does not do all of its work.",
        description=f"{SUBJECT} is watched by agents that are out of order:{''.join(_listed(*fault) for fault in faults.items())}",
        expr=_faulty_agents(settings),
        hold=settings.blind_for,
        dashboard=AGENTS,
    )


def _listed(expression: str, what: str) -> str:
    """Return the template that writes a line for each pod that an expression finds, in the order of their names."""
    found = f"{asked(expression)} | sortByLabel `instance`"
    return (
        f"{{{{- range $place, $seen := {found} }}}}{{{{ if lt $place {LISTED_LAYERS} }}}}"
        f"\n{{{{ with $seen }}}}{{{{ .Labels.instance }}}}: {what}{{{{- end }}}}{{{{- end }}}}{{{{- end }}}}"
    )


def _counted(value: str, thing: str) -> str:
    """Return the template that writes a number of things, in the plural unless it is one."""
    return f"{{{{ with {value} | printf `%.0f` }}}}{{{{ . }}}} {thing}{{{{ if ne . `1` }}}}s{{{{ end }}}}{{{{ end }}}}"


def _over_budget(settings: MixinSettings) -> Alert:
    share = cost_recording(settings).name
    budget = queries.largest(queries.series(catalog.COST_BUDGET, "%[1]s"), *POD)
    pods = asked(f"sort_desc({share}{{%[1]s}} / on ({', '.join(POD)}) ({budget} > 0))")
    allowed = asked(f"max({queries.series(catalog.COST_BUDGET, '%s', 'instance=%q')})", "$mine $pod.Labels.instance")
    taken = asked(f"max({share}{{%s,instance=%q}})", "$mine $pod.Labels.instance")
    percent = "{{ . | first | value | humanizePercentage }}"
    worst = (
        f"{{{{ with {taken} }}}}{percent}{{{{ end }}}} of wall time on pod {{{{ $pod.Labels.instance }}}}, "
        f"where the budget is {{{{ with {allowed} }}}}{percent}{{{{ end }}}}"
    )
    return Alert(
        name="GeluwatchAgentOverBudget",
        tier="ticket",
        owner="infrastructure",
        summary="Watching a model costs its threads more than the budget.",
        description=(
            f"{SUBJECT} pays more for being watched than it is meant to: row capture takes "
            f"{{{{ range $place, $pod := {pods} }}}}{{{{ if eq $place 0 }}}}{worst}{{{{ end }}}}{{{{ end }}}}."
        ),
        expr=_beyond_budget(settings, share),
        hold=settings.blind_for,
        dashboard=AGENTS,
    )


def _blind_layers(settings: MixinSettings) -> str:
    """Return by layer how many pods take traffic without seeing it.

    A GELU that no pass calls is blind as well, though there is nothing to see. What tells the two apart is the armed
    baseline: a layer that it has was seen when somebody judged the model good, and one that it lacks was not, and was
    accepted. Without a baseline every blind layer counts. Before the first pass nothing is blind. A layer of the baseline
    that gives no rows any more while others do is passed by, and as unseen as a blind one; save where the guard counts faults,
    for rows that hold a NaN are left out of a window.
    """
    blind = f"{queries.series(catalog.SITE_OBSERVED, settings.selector)} == 0"
    known = queries.series(catalog.BASELINE_CDF, settings.selector, 'le="+Inf"')
    traffic = f"increase({queries.series(catalog.FORWARDS, settings.selector)}[{settings.blind_for}]) > 0"
    rows = queries.series(catalog.WINDOW_ROWS, settings.selector, 'point="pre"')
    site, pod = f"on ({', '.join(POD)}, layer)", f"on ({', '.join(POD)})"
    others = f"({queries.largest(rows, *POD)} > 0)"
    faulty = f"(increase({queries.series(catalog.SITE_NONFINITE, settings.selector)}[{settings.blind_for}]) > 0)"
    silent = f"(({queries.largest(rows, *POD, 'layer')} == 0) unless {site} {faulty}) and {pod} {others}"
    meant = f"((({blind}) and {site} {known}) or {site} (({silent}) and {site} {known}) or (({blind}) unless {pod} {known}))"
    return queries.number(queries.chain(meant, f"and {pod}", f"({traffic})"), *GROUP, "layer")


def _stalled(settings: MixinSettings) -> str:
    """Return the age of the last window where it is far beyond what is usual, although traffic goes on.

    Usual is what the agent itself has had since it was attached, so that no long range has to be read. Where traffic
    is a fraction of the usual, windows wait for rows, and that is no fault; nor is it where most passes raise, which give none.
    Nothing is told of an age within the rate window, which a few scrapes make of windows that are closed every moment.
    """
    ended, attached, windows, forwards = (
        queries.series(metric, settings.selector) for metric in (catalog.WINDOW_END, catalog.ATTACHED, catalog.WINDOWS, catalog.FORWARDS)
    )
    window = settings.rate_window
    usual = f"{_USUAL_WINDOWS} * ({ended} - {attached}) / ({windows} > 0)"
    old = f"(time() - {ended} > clamp_min({usual}, {seconds(window)}))"
    busy = f"(rate({forwards}[{window}]) * {_USUAL_TRAFFIC} > {forwards} / (time() - {attached} > 0))"
    failing = f"(2 * rate({queries.series(catalog.FAILED_FORWARDS, settings.selector)}[{window}]) > rate({forwards}[{window}]))"
    return queries.largest(queries.chain(old, "and", busy, "unless", failing), *POD)


def _faulty_agents(settings: MixinSettings) -> str:
    """Return how many agents of a model version do not do all of their work.

    A background thread that has ended or hangs leaves every counter where it is, so that the model looks idle; its own
    time betrays it, for it grows with every flush, traffic or not. An agent that is switched off has none, and sees no site.
    """
    errors, dropped, flushed = (
        queries.total(f"increase({queries.series(metric, settings.selector)}[{settings.rate_window}])", *POD)
        for metric in (catalog.ERRORS, catalog.DROPPED_ROWS, catalog.FLUSH_SECONDS)
    )
    disabled = queries.total(queries.series(catalog.PART_DISABLED, settings.selector), *POD)
    off = f"({queries.largest(queries.series(catalog.SITE_OBSERVED, settings.selector), *POD)} == 0)"
    still = f"({flushed} == 0 unless {off})"
    faults = (f"({disabled} > 0)", f"({errors} > 0)", f"({dropped} > 0)", still, stalled_recording(settings).name)
    return queries.number("\nor\n".join(f"  {fault}" for fault in faults), *GROUP)


def _beyond_budget(settings: MixinSettings, share: str) -> str:
    """Return the largest share of wall time that row capture takes, where that is beyond the budget and what may be spent at once.

    Args:
        settings: Which targets to look at.
        share: The recorded series of `cost_recording`.
    """
    window = seconds(settings.rate_window)
    most = OVER_BUDGET * (window + _LEEWAY_SECONDS) / window
    budget = queries.largest(queries.series(catalog.COST_BUDGET, settings.selector), *POD)
    return queries.largest(queries.chain(share, f"> on ({', '.join(POD)})", f"{most:.4g} * {budget}"), *GROUP)


def _agents_seen(settings: MixinSettings) -> str:
    """Return the agents that were there at some time within `agent_memory`, by target and model version."""
    agent = queries.series(catalog.BUILD_INFO, settings.selector)
    return queries.largest(f"max_over_time({agent}[{settings.agent_memory}:{memory_step(settings)}s])", *TARGET, "model", "model_version")


def _agents_missing(settings: MixinSettings, seen: str) -> str:
    """Return the models that lost agents, and with `expected_targets` the jobs whose targets never had one.

    Job names are not known, so absence is told by memory. An agent that was seen is missed where its target is still
    there without any agent; and where its model has none left at all while its job has a target without one (a new
    pod that forgot to attach). A target that left service discovery is not missed, nor is a model that was scaled to
    zero, renamed or replaced. Nor do targets count as forgotten on a host that has an agent on another port, as those of
    the application's own metrics. Traffic plays no part.

    Args:
        settings: Which targets to look at.
        seen: The recorded series of `agents_seen`.
    """
    agent = queries.series(catalog.BUILD_INFO, settings.selector)
    on_target, on_model, on_job = (f"on ({', '.join(labels)})" for labels in (TARGET, MODEL_GROUP, JOB))
    target = f"up{{{settings.selector}}}" if settings.selector else "up"
    bare = f"({target} unless {on_target} {agent})"
    stripped = queries.chain(seen, f"and {on_target}", bare)
    forgotten = f"({queries.by_host(bare)} unless on ({', '.join(JOB)}, host) {queries.by_host(agent)})"
    vanished = queries.chain(f"({seen} unless {on_model} {agent})", f"and {on_job}", forgotten)
    lost = f"{stripped}\nor\n{vanished}"
    missing = queries.number(lost, *MODEL_GROUP)
    if not settings.expected_targets:
        return missing
    matchers = ",".join(part for part in (settings.selector, settings.expected_targets) if part)
    never = f"(up{{{matchers}}} == 1) unless {on_target} {seen}"
    return f"{missing}\nor\n{queries.number(never, *JOB)}"


def memory_step(settings: MixinSettings) -> int:
    """Return the seconds between two looks back for agents, a day of which at every scrape would cost too much."""
    return max(1, seconds(settings.agent_memory) // _MEMORY_STEPS)
