"""What fires now, since when, and what has fired."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import RANGE, Queries, Row, drill_down, firing
from geluwatch.mixin.panels import BLUE, EMPTY_CELLS, ORANGE, RED, Figure, Json, Stat, Table, cells, columns, judged, override, target
from geluwatch.mixin.queries import by_host, number
from geluwatch.mixin.settings import Tier

_HIDDEN = ("Time", "__name__", "job", "alertstate", "owner")
_NAMES = {
    "Value": "Since",
    "severity": "Severity",
    "alertname": "Alert",
    "model": "Model",
    "model_version": "Version",
    "region": "Region",
    "cluster": "Cluster",
    "namespace": "Namespace",
    "instance": "Pod",
    "slo": "Objective",
}
_SUBJECT = ("model", "model_version", "region", "cluster", "namespace", "instance", "slo")
_MINUTE = 60


def tile(ask: Queries, tier: Tier) -> Stat:
    """Return the tile with how many alerts of a tier fire."""
    text = "somebody has been woken" if tier == "page" else "these wait for working hours"
    return Stat(
        f"{tier.title()}s firing",
        f"Alerts of this tier that fire now: {text}. What they are about stands in the table of firing alerts.",
        [target(f"{number(firing(ask.settings, tier))} or vector(0)", "firing")],
        size=(3, 4),
        field={"thresholds": judged((1, RED if tier == "page" else ORANGE)), "noValue": "No reading"},
        options={"textMode": "value"},
    )


def table(ask: Queries) -> Table:
    """Return the table of what fires: pages first, each with its runbook."""
    # ALERTS is always 1; since when an alert holds is told by the series beside it.
    since = firing(ask.settings, state="", name="ALERTS_FOR_STATE")
    return Table(
        "Firing alerts",
        "What fires now and since when it has held. An alert opens its runbook, a model the debug dashboard.",
        [cells(f"1000 * ({since} and ignoring (alertstate) {firing(ask.settings)})")],
        size=(14, 9),
        unit="string",
        field={"noValue": "Nothing fires"},
        overrides=[
            EMPTY_CELLS,
            override("byName", "Since", unit="dateTimeFromNow", custom__width=130),
            _severity(ask),
            override("byName", "Alert", links=[ask.runbook_of("${__value.text}")]),
            override("byName", "Model", links=[drill_down("Debug this model", model="${__value.text}")]),
        ],
        options={"sortBy": [{"displayName": "Severity", "desc": False}, {"displayName": "Since", "desc": False}]},
        transformations=[columns(hide=_HIDDEN, rename=_NAMES, order=("severity", "alertname", *_SUBJECT, "Value"))],
    )


def _severity(ask: Queries) -> Json:
    """Return the settings of the column with severities, each in the colour of its tier."""
    colours = {"page": RED, "ticket": ORANGE, "notice": BLUE}
    words = [
        {"type": "value", "options": {severity: {"text": severity, "color": colours[tier]}}}
        for tier, severity in ask.settings.severities.items()
    ]
    return override("byName", "Severity", mappings=words, custom__cellOptions={"type": "color-background"}, custom__width=90)


def history_row(ask: Queries) -> Row:
    """Return the row of what has fired in the shown time range."""
    return Row("Alerts of the shown time range", (_kinds(ask), _longest(ask)))


def count(ask: Queries, tier: Tier) -> Figure:
    """Return the tile with how many incidents of a tier there were."""
    fired = f"count_over_time({firing(ask.settings, tier)}[{RANGE}])"
    return Figure(
        f"{tier.title()}s",
        "Different incidents of this tier in the shown time range; one incident is one alert for one model version in one region.",
        [target(f"{number(fired)} or vector(0)", f"{tier}s", instant=True)],
        size=(3, 4),
        field={"noValue": "No reading"},
        options={"textMode": "value"},
    )


def _kinds(ask: Queries) -> Table:
    fired = f"count_over_time({firing(ask.settings)}[{RANGE}])"
    return Table(
        "Incidents by alert",
        "Different incidents in the shown time range, by severity and alert; an alert opens its runbook.",
        [cells(number(fired, "alertname", "severity"))],
        size=(10, 8),
        unit="none",
        field={"noValue": "Nothing fired"},
        overrides=[_severity(ask), override("byName", "Alert", links=[ask.runbook_of("${__value.text}")])],
        options={"sortBy": [{"displayName": "Severity", "desc": False}, {"displayName": "Incidents", "desc": True}]},
        transformations=[columns(hide=("Time",), rename={**_NAMES, "Value": "Incidents"}, order=("severity", "alertname", "Value"))],
    )


def _longest(ask: Queries) -> Table:
    minutes = f"count_over_time({firing(ask.settings)}[{RANGE}:1m])"
    return Table(
        "Time spent firing",
        "How long each alert has been firing in the shown time range, to the minute; an alert opens its runbook.",
        [cells(f"sort_desc({_MINUTE} * {minutes})")],
        size=(14, 8),
        unit="string",
        field={"noValue": "Nothing fired"},
        overrides=[
            EMPTY_CELLS,
            override("byName", "Firing for", unit="s"),
            _severity(ask),
            override("byName", "Alert", links=[ask.runbook_of("${__value.text}")]),
        ],
        transformations=[
            columns(
                hide=_HIDDEN,
                rename={**_NAMES, "Value": "Firing for"},
                order=("Value", "severity", "alertname", *_SUBJECT),
            )
        ],
    )


def missing(ask: Queries) -> Stat:
    """Return the tile with the targets of jobs with agents that answer without any."""
    here = ask.gauge(catalog.BUILD_INFO)
    bare = f'((up{{job=~"$job",instance=~"$instance"}} == 1) unless on (cluster, namespace, job, instance) {here})'
    forgotten = f"{by_host(bare)} unless on (cluster, namespace, job, host) {by_host(here)}"
    return Stat(
        "Targets without agent",
        "Targets of the jobs that have agents which answer and carry none, on hosts without one: pods that forgot to attach, or lost it.",
        [target(ask.or_zero(number(f"({forgotten}) and on (cluster, namespace, job) {here}"), catalog.BUILD_INFO), "targets")],
        size=(3, 4),
        field={"thresholds": judged((1, ORANGE)), "noValue": "No agent"},
        options={"textMode": "value"},
        links=ask.runbook("AgentMissing"),
    )
