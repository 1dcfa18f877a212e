"""The labels and annotations that every alert gets: its tier as a severity, its owner, and links that open."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.queries import POD
from geluwatch.mixin.rules.alerting import Alert, matchers
from geluwatch.mixin.settings import MixinSettings


def rule_labels(alert: Alert, settings: MixinSettings) -> dict[str, str]:
    """Return the labels that an alert's rule adds."""
    return {"severity": severity(alert, settings), "owner": alert.owner}


def severity(alert: Alert, settings: MixinSettings) -> str:
    """Return the value of the alert's `severity` label."""
    return settings.severities[alert.tier]


def rule_annotations(alert: Alert, settings: MixinSettings) -> dict[str, str]:
    """Return the annotations of an alert, as the templates that Prometheus expands."""
    asks = "$mine" in alert.description
    return {
        "summary": alert.summary,
        "description": f"{matchers(alert.labels)}\n{alert.description}" if asks else alert.description,
        "runbook_url": _runbook_url(alert, settings),
        "dashboard_url": _dashboard_url(alert, settings),
    }


def _runbook_url(alert: Alert, settings: MixinSettings) -> str:
    """Return the link to the runbook: the published one, else one that opens from an agent's own listener.

    The agent is one of the alert's own model where there is any left, else any agent; the last resort is the path in
    the repository.
    """
    if settings.runbook_base is not None:
        return f"{settings.runbook_base.rstrip('/')}/{alert.name}"
    agent, whose = catalog.BUILD_INFO.series, tuple(label for label in alert.labels if label in POD)
    return (
        f"{matchers(whose)}{{{{ with or (query (printf `{agent}{{%s}}` $mine)) (query `{agent}`) }}}}"
        f"http://{{{{ . | first | label `instance` }}}}/runbooks/{alert.name}{{{{ else }}}}runbooks/{alert.name}.md{{{{ end }}}}"
    )


def _dashboard_url(alert: Alert, settings: MixinSettings) -> str:
    base = (settings.dashboard_base or "").rstrip("/")
    first, *others = (label for label in ("job", "model", "cluster", "namespace") if label in alert.labels)
    # What an alert has no value of is not chosen by: without it the dashboard shows all.
    chosen = "".join(f"{{{{ with $labels.{label} }}}}&var-{label}={{{{ . | urlquery }}}}{{{{ end }}}}" for label in others)
    return f"{base}/d/{alert.dashboard}?var-{first}={{{{ $labels.{first} | urlquery }}}}{chosen}"
