"""Everything there is to read when something is wrong: the runbook of each alert, and the playbooks above them."""

from __future__ import annotations

from collections.abc import Mapping

from geluwatch.errors import ConfigError
from geluwatch.mixin import playbooks, runbooks
from geluwatch.mixin.prose import found
from geluwatch.mixin.settings import MixinSettings


def contents() -> dict[str, Mapping[str, str]]:
    """Return the names and what each is about, in one sentence, of runbooks and then of playbooks."""
    return {"Runbooks": runbooks.summaries(), "Playbooks": playbooks.SUMMARIES}


def page(name: str) -> str:
    """Return a runbook or a playbook as Markdown, for the default settings.

    Args:
        name: Its name, in any case, with or without "Geluwatch" before it.

    Raises:
        ConfigError: There is none of that name; the message lists those there are.
    """
    if found(name, playbooks.SUMMARIES):
        return playbooks.playbook(name)
    if found(name, runbooks.names()):
        return runbooks.runbook(name)
    known = (", ".join(names) for names in contents().values())
    raise ConfigError(f"There is no runbook {name!r}; there are {', and the playbooks '.join(known)}.")


def files(settings: MixinSettings) -> dict[str, str]:
    """Return every text by its path below the folder of runbooks."""
    return {
        **{f"{name}.md": runbooks.runbook(name, settings) for name in runbooks.names()},
        **{f"playbooks/{name}.md": playbooks.playbook(name, settings) for name in playbooks.SUMMARIES},
    }
