"""Agents that are gone."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.queries import JOB, MODEL_GROUP, TARGET
from geluwatch.mixin.rules.alerting import Alert, Recording
from geluwatch.mixin.settings import MixinSettings, seconds

_MEMORY_STEPS = 288


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules."""
    return (agents_recording(settings),)


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_agent_missing(settings),)


def agents_recording(settings: MixinSettings) -> Recording:
    """Return the rule that remembers which agents were there."""
    return Recording(name=f"instance_model:{catalog.BUILD_INFO.series}:max{settings.agent_memory}", expr=_agents_seen(settings))


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


def _agents_seen(settings: MixinSettings) -> str:
    """Return the agents that were there at some time within `agent_memory`, by target and model version."""
    agent = queries.series(catalog.BUILD_INFO, settings.selector)
    return queries.largest(f"max_over_time({agent}[{settings.agent_memory}:{memory_step(settings)}s])", *TARGET, "model", "model_version")


def _agents_missing(settings: MixinSettings, seen: str) -> str:
    """Return the models that lost agents, and with `expected_targets` the jobs whose targets never had one.

    Job names are not known, so absence is told by memory. An agent that was seen is missed where its target is still
    there without any agent; and where its model has none left at all while its job has a target without one (a new
    pod that forgot to attach). A target that left service discovery is not missed, nor is a model that was scaled to
    zero, renamed or replaced. Traffic plays no part.

    Args:
        settings: Which targets to look at.
        seen: The recorded series of `agents_seen`.
    """
    agent = queries.series(catalog.BUILD_INFO, settings.selector)
    on_target, on_model, on_job = (f"on ({', '.join(labels)})" for labels in (TARGET, MODEL_GROUP, JOB))
    target = f"up{{{settings.selector}}}" if settings.selector else "up"
    bare = f"({target} unless {on_target} {agent})"
    stripped = queries.chain(seen, f"and {on_target}", bare)
    vanished = queries.chain(f"({seen} unless {on_model} {agent})", f"and {on_job}", bare)
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
