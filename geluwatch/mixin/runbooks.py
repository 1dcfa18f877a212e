"""One runbook for each alert: the prose is a template, the facts of the rule are filled in from the alert itself.

Agents serve these pages beside their metrics, so importing this module stays light: neither YAML nor grafanalib.
"""

from __future__ import annotations

from geluwatch.errors import ConfigError
from geluwatch.mixin.prose import filled, found
from geluwatch.mixin.rules import alerts, recordings
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.rules.annotations import severity
from geluwatch.mixin.settings import MixinSettings

_GAP = "\n\n"
_REACTION = {"page": "wakes someone up", "ticket": "opens a ticket for working hours", "notice": "tells nobody, keeps other alerts quiet"}


def names() -> tuple[str, ...]:
    """Return the names of all runbooks, which are those of the alerts, pages first."""
    return tuple(summaries())


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
    tiers = _find(name, used)
    title, rest = filled("runbooks", tiers[0].name, used, _facts(tiers, used)).split("\n", 1)
    return f"{title}\n\n{tiers[0].summary}\n{rest}"


def _find(name: str, settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alert of a name, in each of its tiers."""
    known = found(name, names())
    if known is None:
        raise ConfigError(f"There is no runbook {name!r}; there are {', '.join(names())}.")
    return tuple(alert for alert in alerts(settings) if alert.name == known)


def _facts(tiers: tuple[Alert, ...], settings: MixinSettings) -> dict[str, str]:
    columns = [_column(alert, settings) for alert in tiers]
    head = ["Fact", *("Value" if len(tiers) == 1 else f"As a {alert.tier}" for alert in tiers)]
    rows = [head, ["---"] * len(head), *([fact, *(column[fact] for column in columns)] for fact in columns[0])]
    return {
        "facts": "\n".join(_row(row) for row in rows),
        "expression": _fences(tiers, settings),
    }


def _row(cells: list[str]) -> str:
    return "|---" * len(cells) + "|" if set(cells) == {"---"} else f"| {' | '.join(cells)} |"


def _column(alert: Alert, settings: MixinSettings) -> dict[str, str]:
    at_once = alert.hold.startswith("0")
    return {
        "Severity": f"`{severity(alert, settings)}`: {_REACTION[alert.tier]}",
        "Fires": "at once" if at_once else f"once the expression has held for {alert.hold}",
        "Ends": f"{f'{alert.keep_firing_for} after' if alert.keep_firing_for else 'as soon as'} the expression no longer holds",
        "One alert for each": ", ".join(f"`{label}`" for label in alert.labels),
    }


def _fences(tiers: tuple[Alert, ...], settings: MixinSettings) -> str:
    """Return the alert's expression in each tier, then the recording rules that they read."""
    read = [recording for recording in recordings(settings) if any(recording.name in alert.expr for alert in tiers)]
    fences = [f"{'' if len(tiers) == 1 else f'As a {alert.tier}:{_GAP}'}```promql\n{alert.expr}\n```" for alert in tiers]
    recorded = [f"`{recording.name}` is recorded from:\n\n```promql\n{recording.expr}\n```" for recording in read]
    return _GAP.join([*fences, *recorded])
