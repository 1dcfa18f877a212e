"""The first two minutes of a runbook, cut out of it, so that a report needs no network to say what to do."""

from __future__ import annotations

import re

from markupsafe import Markup

from geluwatch.export import markdown
from geluwatch.mixin import runbooks

_FIRST = re.compile(r"\*\*First two minutes\*\*\n(.*?)\n(?:\| Fact|## )", re.DOTALL)
_LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./|playbooks/)?(\w+)\.md\)")


def first_steps(name: str) -> Markup:
    """Return what a runbook tells to do in the first two minutes, as HTML; links become the commands that open what they lead to."""
    found = _FIRST.search(runbooks.runbook(name))
    source = found[1] if found else f"Read it: `geluwatch runbook {name}`."
    return Markup(markdown.render(_LINK.sub(r"\1 (`geluwatch runbook \2`)", source)).html)  # noqa: S704  # our own text, rendered without HTML
