"""Playbooks: what people do in the same way whatever the alert is, so that runbooks can be short and point there."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from geluwatch.errors import ConfigError
from geluwatch.mixin.prose import filled, found
from geluwatch.mixin.settings import MixinSettings

SUMMARIES: Mapping[str, str] = MappingProxyType(
    {
        "Incident": "A checklist from the first alert to the regression test.",
        "Rollback": "Go back to the version and the baseline that worked, and prove that it helped.",
        "Canary": "Give a new version 5 % of the traffic, and promote it after 24 stable hours.",
        "Rebaseline": "Record what is normal anew: when that is right, and when it hides a fault.",
        "Maintenance": "Keep alerts quiet while something is changed on purpose.",
        "GameDay": "Break things on purpose, and see that the alerts, the runbooks and the people work.",
    }
)
"""What each playbook is for, in one sentence, by its name; the one to open first comes first."""


def playbook(name: str, settings: MixinSettings | None = None) -> str:
    """Return a playbook as Markdown.

    Args:
        name: Name of the playbook, in any case.
        settings: Those the alerts were rendered with; None means the default.

    Raises:
        ConfigError: There is no playbook of that name; the message lists those there are.
    """
    known = found(name, SUMMARIES)
    if known is None:
        raise ConfigError(f"There is no playbook {name!r}; there are {', '.join(SUMMARIES)}.")
    return filled("playbooks", known, settings or MixinSettings(), {"summary": SUMMARIES[known]})
