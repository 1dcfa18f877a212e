"""One runbook for each alert: the prose is a template, the facts of the rule are filled in from the alert itself.

Agents serve these pages beside their metrics, so importing this module stays light: neither YAML nor grafanalib.
"""

from __future__ import annotations

import string
from importlib import resources

from geluwatch.errors import ConfigError
from geluwatch.mixin import queries
from geluwatch.mixin.alerts import Alert, alerts, recordings, severity
from geluwatch.mixin.settings import MixinSettings

_PREFIX = "geluwatch"
_REACTION = {"page": "wakes someone up", "ticket": "opens a ticket for working hours"}


class _Prose(string.Template):
    """Markdown with `@{name}` for facts, since `$` belongs to shell snippets."""

    delimiter = "@"


def names() -> tuple[str, ...]:
    """Return the names of all runbooks, which are those of the alerts, pages first."""
    return tuple(alert.name for alert in alerts(MixinSettings()))


def summaries() -> dict[str, str]:
    """Return what each runbook is about, in one sentence, by its name."""
    return {alert.name: alert.summary for alert in alerts(MixinSettings())}


def runbook(name: str, settings: MixinSettings | None = None) -> str:
    """Return a runbook as Markdown.

    Args:
        name: Name of the alert, in any case, with or without "Geluwatch" before it.
        settings: Those the alerts were rendered with; None means the default.

    Raises:
        ConfigError: There is no runbook of that name; the message lists those there are.
    """
    used = settings or MixinSettings()
    alert = _find(name, used)
    template = resources.files("geluwatch.mixin").joinpath("templates", "runbooks", f"{alert.name}.md")
    return _Prose(template.read_text(encoding="utf-8")).substitute(_facts(alert, used))


def _find(name: str, settings: MixinSettings) -> Alert:
    wanted = name.strip().lower().removesuffix(".md").removeprefix(_PREFIX)
    for alert in alerts(settings):
        if alert.name.lower().removeprefix(_PREFIX) == wanted:
            return alert
    raise ConfigError(f"There is no runbook {name!r}; there are {', '.join(names())}.")


def _facts(alert: Alert, settings: MixinSettings) -> dict[str, str]:
    at_once = alert.hold.startswith("0")
    lines = [
        f"| Severity | `{severity(alert, settings)}`: {_REACTION[alert.tier]} |",
        f"| Fires | {'at once' if at_once else f'once the expression has held for {alert.hold}'} |",
        f"| Ends | {f'{alert.keep_firing_for} after' if alert.keep_firing_for else 'as soon as'} the expression no longer holds |",
        f"| One alert for each | {', '.join(f'`{label}`' for label in alert.labels)} |",
    ]
    return {
        "facts": "\n".join(["| Fact | Value |", "|---|---|", *lines]),
        "expression": _fence(alert, settings),
        "window": settings.rate_window,
        "grace": settings.grace,
        "memory": settings.agent_memory,
        "memory_step": f"{queries.memory_step(settings)}s",
    }


def _fence(alert: Alert, settings: MixinSettings) -> str:
    """Return the alert's expression, after the recording rules it reads."""
    read = [recording for recording in recordings(settings) if recording.name in alert.expr]
    recorded = [f"`{recording.name}` is recorded from:\n\n```promql\n{recording.expr}\n```" for recording in read]
    return "\n\n".join([f"```promql\n{alert.expr}\n```", *recorded])
