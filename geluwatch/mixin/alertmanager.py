"""An example configuration of Alertmanager, made from the alerts: who is told of what, what is told together, and what is kept quiet.

What explains what, and what a rollout keeps quiet, is data here. Tier and owner are data of the alerts, and the
labels that an inhibition compares are those that both of its alerts have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from textwrap import indent
from typing import Any

from geluwatch.mixin.queries import JOB
from geluwatch.mixin.rulefile import GENERATED, dump
from geluwatch.mixin.rules import alerts
from geluwatch.mixin.settings import MixinSettings, Tier

EXAMPLE_FILE = "alertmanager.example.yaml"

MAINTENANCE, DIGEST_TIME = "maintenance", "monday-morning"

PREFIX = "Geluwatch"
"""What the names of our alerts begin with, and the names of others do not."""

TOGETHER = ("cluster", "region", "namespace", "model")
"""One notification holds whatever goes wrong with a model in a region, in all its versions, pods and jobs, a canary's included."""

_EXAMPLE_MODEL = "minilm"
_PAGE_TIMES = {"group_wait": "30s", "group_interval": "5m", "repeat_interval": "4h"}
# Alertmanager forgets what it has sent after five days, unless told otherwise, so nothing is repeated more rarely.
_TICKET_TIMES = {"group_wait": "5m", "group_interval": "1h", "repeat_interval": "5d"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One alert that explains others, which then need not be told as well."""

    cause: str
    explained: tuple[str, ...]
    why: str
    matchers: tuple[str, ...] = ()
    """What the cause must match besides its name."""
    only: tuple[str, ...] = ()
    """What the others must match besides their names."""
    tier: Tier | None = None
    """Which tier of the others; None for both, if the cause is a page: a ticket keeps no page quiet."""
    labels: tuple[str, ...] = ()
    """Labels of a cause that is no alert of ours."""


QUIET_IN_ROLLOUT = (
    "GeluwatchActivationDrift",
    "GeluwatchPodDrift",
    "GeluwatchSaturation",
    "GeluwatchLatencySpike",
    "GeluwatchCostUp",
    "GeluwatchAgentMissing",
)
"""Tickets that a rollout brings along and that pass with it: traffic moves between versions, pods start cold, two versions
run at once, pods leave. What would be a reason to take it back is not among them: accuracy, kernels, budgets of errors,
and above all a canary that diverges."""

EXPLANATIONS = (
    Explanation(
        cause="GeluwatchNonFiniteActivations",
        explained=(
            "GeluwatchGrossFault",
            "GeluwatchActivationDrift",
            "GeluwatchPodDrift",
            "GeluwatchCanaryDivergence",
            "GeluwatchOverflowAhead",
            "GeluwatchSaturation",
            "GeluwatchTrainingFault",
            "GeluwatchAccuracyDrop",
        ),
        why="After a NaN or an Inf nothing behind it looks as it should.",
    ),
    Explanation(
        cause="GeluwatchGrossFault",
        explained=("GeluwatchActivationDrift", "GeluwatchPodDrift", "GeluwatchSaturation", "GeluwatchAccuracyDrop"),
        why="A layer that is dead or wrong has left its baseline, and so have those behind it.",
    ),
    Explanation(
        cause="GeluwatchOverflowAhead",
        explained=("GeluwatchActivationDrift", "GeluwatchPodDrift", "GeluwatchCanaryDivergence", "GeluwatchSaturation"),
        why="Values that grow towards an overflow leave their baseline on the way.",
    ),
    Explanation(
        cause="GeluwatchOutOfMemory",
        explained=("GeluwatchMemoryPressure",),
        why="Memory that has run out was short before.",
    ),
    Explanation(
        cause="GeluwatchOutOfMemory",
        explained=("GeluwatchErrorBudgetBurn",),
        only=('slo="availability"',),
        tier="ticket",
        why="The passes that it ended burn the budget of errors. A page of that goes out: one of them must not hide that others fail.",
    ),
    Explanation(
        cause="GeluwatchErrorBudgetBurn",
        matchers=('slo="latency"',),
        explained=("GeluwatchLatencySpike",),
        why="A burning budget of slow passes says with more weight what a spike says.",
    ),
    Explanation(
        cause="GeluwatchBaselineMixed",
        explained=("GeluwatchPodDrift",),
        why="Pods that are compared with different baselines stray for that reason.",
    ),
    Explanation(
        cause="GeluwatchAgentMissing",
        explained=("GeluwatchAgentFaulty", "GeluwatchAgentOverBudget"),
        why="An agent that is gone is neither out of order nor too dear.",
    ),
    Explanation(
        cause="TargetDown",
        labels=JOB,
        explained=("GeluwatchAgentMissing",),
        why="An alert of kube-prometheus: where targets of a job do not answer, their agents are missed for that reason.",
    ),
    Explanation(
        cause="GeluwatchRollout",
        explained=QUIET_IN_ROLLOUT,
        tier="ticket",
        why="A rollout keeps the tickets quiet that come with it, of all versions of the model; pages go out.",
    ),
)

_HEAD = f"""\
# {GENERATED}
# An example to adapt: put your receivers in place of those at *.example, your teams' models in place of {_EXAMPLE_MODEL},
# and your own hours. In a configuration that you have, as that of kube-prometheus, the route of {PREFIX} alerts goes
# below the topmost route, and the other sections are appended to theirs. That configuration lets a critical alert
# silence warnings of the same name in the same namespace, so there one model's drift page hides another's drift ticket.
"""
_COMMENTS = {
    "route": f"""\
By owner and severity. Notices are told to nobody. Every ticket goes into the digest as well, which is sent on Monday
morning and lists what fires then; what fired during the week is on the dashboards. A group is a model in a region:
whatever goes wrong there at once is one notification. Maintenance keeps tickets quiet and never a page: hours that
come back by themselves must not hide an outage. Alerts without "{PREFIX}" in their names go wherever they went before.""",
    "time_intervals": """\
Set maintenance to the hours that you have planned, in a zone of your own. For work that pages would get in the way of:
amtool silence add --duration=2h --author=NAME --comment=WHY alertname=~"Geluwatch.+" namespace=NAMESPACE owner=infrastructure""",
    "inhibit_rules": """\
An alert at the top of a rule keeps those below it quiet where all labels of `equal` agree. A label that both lack agrees
as well, which is what a setup without clusters or regions needs; no rule compares labels that only one side can have.""",
    "receivers": "Webhooks stand for whatever wakes your people and takes your tickets.",
}


def example(settings: MixinSettings) -> bytes:
    """Return the example configuration as YAML, with a comment before each section and each inhibition."""
    rules = "".join(f"  # {why}\n{indent(_yaml([rule]), '  ')}" for why, rule in _explained(settings))
    written = {
        "route": _yaml({"route": _route(settings)}),
        "time_intervals": _yaml({"time_intervals": _time_intervals()}),
        "inhibit_rules": f"inhibit_rules:\n{rules}",
        "receivers": _yaml({"receivers": _receivers()}),
    }
    sections = (f"\n{indent(_COMMENTS[key], '# ')}\n{text}" for key, text in written.items())
    return "".join([_HEAD, *sections]).encode()


def inhibit_rules(settings: MixinSettings) -> list[dict[str, Any]]:
    """Return which alerts keep which others quiet."""
    return [rule for _, rule in _explained(settings)]


def _yaml(value: object) -> str:
    return dump(value).decode().removeprefix(f"# {GENERATED}\n")


def _explained(settings: MixinSettings) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the inhibitions, each after the reason for it; explained alerts with the same labels share a rule."""
    rendered = {alert.name: alert.labels for alert in alerts(settings)}
    paging = {alert.name for alert in alerts(settings) if alert.tier == "page"}
    ticketing = {alert.name for alert in alerts(settings) if alert.tier == "ticket"}
    severity = {tier: f'severity="{value}"' for tier, value in settings.severities.items()}
    yield from _tiers(settings)
    for found in EXPLANATIONS:
        labels = found.labels or rendered.get(found.cause)
        if not labels:
            continue
        shared: dict[tuple[str, ...], list[str]] = {}
        for name in (name for name in found.explained if name in rendered):
            shared.setdefault(tuple(label for label in labels if label in rendered[name]), []).append(name)
        for equal, names in shared.items():
            source, target = [f'alertname="{found.cause}"', *found.matchers], [_one_of(names), *found.only]
            if found.tier is not None:
                yield found.why, _inhibition(source, [*target, severity[found.tier]], equal)
            elif found.cause in ticketing and paging.intersection(names):  # which a ticket must not keep quiet
                if found.cause in paging:
                    yield found.why, _inhibition([*source, severity["page"]], target, equal)
                yield found.why, _inhibition([*source, severity["ticket"]], [*target, severity["ticket"]], equal)
            else:
                yield found.why, _inhibition(source, target, equal)


def _tiers(settings: MixinSettings) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the inhibitions of tickets by pages of the same name about the same thing."""
    tiers: dict[str, set[Tier]] = {}
    shared: dict[tuple[str, ...], list[str]] = {}
    for alert in alerts(settings):
        tiers.setdefault(alert.name, set()).add(alert.tier)
        if tiers[alert.name] >= {"page", "ticket"} and alert.name not in shared.setdefault(alert.labels, []):
            shared[alert.labels].append(alert.name)
    for labels, names in shared.items():
        if names:
            page, ticket = ([_one_of(names), f'severity="{settings.severities[tier]}"'] for tier in ("page", "ticket"))
            yield "A page makes its own ticket needless.", _inhibition(page, ticket, ("alertname", *labels))


def _one_of(names: list[str]) -> str:
    return f'alertname=~"{"|".join(names)}"' if len(names) > 1 else f'alertname="{names[0]}"'


def _inhibition(source: list[str], target: list[str], equal: tuple[str, ...]) -> dict[str, Any]:
    return {"source_matchers": source, "target_matchers": target, "equal": list(equal)}


def _route(settings: MixinSettings) -> dict[str, Any]:
    """Return the tree of routes: ours hang below one that takes nobody else's alerts."""
    severity = {tier: f'severity="{value}"' for tier, value in settings.severities.items()}
    ours = {
        "matchers": [f'alertname=~"{PREFIX}.+"'],
        "receiver": "model-tickets",
        "group_by": list(TOGETHER),
        **_TICKET_TIMES,
        "routes": [
            {"matchers": [severity["notice"]], "receiver": "nobody"},
            _digest(severity),
            {"matchers": ['owner="infrastructure"'], "routes": _tier_routes("infrastructure", severity)},
            {"matchers": [f'model="{_EXAMPLE_MODEL}"'], "routes": _tier_routes(_EXAMPLE_MODEL, severity)},
            *_tier_routes("model", severity),
        ],
    }
    return {"receiver": "everything-else", "group_by": ["namespace", "alertname"], **_PAGE_TIMES, "routes": [ours]}


def _digest(severity: Mapping[Tier, str]) -> dict[str, Any]:
    """Return the route that hands every ticket to the weekly digest, and on to its owner."""
    return {
        "matchers": [severity["ticket"]],
        "receiver": "weekly-digest",
        "group_by": ["model"],
        "active_time_intervals": [DIGEST_TIME],
        "continue": True,
    }


def _tier_routes(owner: str, severity: Mapping[Tier, str]) -> list[dict[str, Any]]:
    """Return the routes of an owner's pages and tickets."""
    return [
        {"matchers": [severity["page"]], "receiver": f"{owner}-pages", **_PAGE_TIMES},
        {"matchers": [severity["ticket"]], "receiver": f"{owner}-tickets", "mute_time_intervals": [MAINTENANCE]},
    ]


def _time_intervals() -> list[dict[str, Any]]:
    """Return an example of planned maintenance, and when the digest is sent."""
    first_saturday = {"weekdays": ["saturday"], "days_of_month": ["1:7"], "times": [{"start_time": "02:00", "end_time": "04:00"}]}
    monday = {"weekdays": ["monday"], "times": [{"start_time": "08:00", "end_time": "10:00"}]}
    intervals = {MAINTENANCE: first_saturday, DIGEST_TIME: monday}
    return [{"name": name, "time_intervals": [{**when, "location": "UTC"}]} for name, when in intervals.items()]


def _receivers() -> list[dict[str, Any]]:
    """Return the receivers: one that drops what it gets, and webhooks."""
    owners = ("model", _EXAMPLE_MODEL, "infrastructure")
    urls = {f"{owner}-{kind}s": f"http://{kind}s.example/{owner}" for owner in owners for kind in ("page", "ticket")}
    told = [_webhook(name, url) for name, url in urls.items()]
    digest = _webhook("weekly-digest", "http://tickets.example/digest", send_resolved=False)
    return [{"name": "nobody"}, *told, digest, _webhook("everything-else", "http://pages.example/everything-else")]


def _webhook(name: str, url: str, *, send_resolved: bool = True) -> dict[str, Any]:
    return {"name": name, "webhook_configs": [{"url": url, "send_resolved": send_resolved}]}
