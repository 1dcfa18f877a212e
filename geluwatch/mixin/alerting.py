"""What alerts and recording rules are, and the words and templates that their annotations share."""

from __future__ import annotations

from dataclasses import dataclass

from geluwatch.mixin import queries
from geluwatch.mixin.settings import Tier

SUBJECT = "Model {{ $labels.model }} version {{ $labels.model_version }}"
NUMBER = "{{ . | first | value | printf `%.0f` }}"
PASSES = "{{ with printf `%.0f` $value }}{{ . }} forward pass{{ if ne . `1` }}es{{ end }}{{ end }}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One recording rule, named level:metric:operation."""

    name: str
    expr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alerting rule, before its tier becomes a severity and its links are added."""

    name: str
    tier: Tier
    summary: str
    """What happened, in one sentence without variables."""
    description: str
    """What happened to whom: a Go template, in which `$mine` holds the matchers of the alert's own labels."""
    expr: str
    hold: str
    """How long the expression must hold: the rule's `for`."""
    keep_firing_for: str | None = None
    labels: tuple[str, ...] = queries.GROUP
    """Labels that tell one incident from another."""


def asked(expression: str, about: str = "$mine") -> str:
    """Return the template that asks for an expression about an alert's labels."""
    return f"query (printf `{expression}` {about})"
