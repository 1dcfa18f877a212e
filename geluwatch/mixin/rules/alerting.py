"""What alerts and recording rules are, and the words and templates that their annotations share.

Annotations are Go templates that Prometheus fills in when a rule fires; there `query` asks the server itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geluwatch.mixin import queries
from geluwatch.mixin.links import ONCALL
from geluwatch.mixin.settings import MixinSettings, Tier, seconds, spelled

Owner = Literal["model", "infrastructure"]
"""Who is to act: whoever owns the model, or whoever runs what it runs on."""

SUBJECT = "Model {{ $labels.model }} version {{ $labels.model_version }}"
NUMBER = "{{ . | first | value | printf `%.0f` }}"
PASSES = "{{ with printf `%.0f` $value }}{{ . }} forward pass{{ if ne . `1` }}es{{ end }}{{ end }}"
LISTED_LAYERS = 5
"""Layers that a text names at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One recording rule, named level:metric:operation."""

    name: str
    expr: str
    labels: tuple[tuple[str, str], ...] = ()
    """Labels that the rule adds, as pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alerting rule, before its tier becomes a severity and its links are added."""

    name: str
    tier: Tier
    owner: Owner
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
    dashboard: str = ONCALL
    """The dashboard on which to look at it first, by uid."""


def lasting(settings: MixinSettings, rank: int) -> str:
    """Return how long an alert outlives its cause: longer than those of a lower rank, which it keeps quiet.

    They would slip out behind it if all ended at once. Rank 0 is a ticket or a page that keeps nothing quiet but what ends
    with its cause, 1 the page of drift, 2 faults read from windows and the ticket of an overflow ahead, 3 that one's page.
    """
    least = seconds(settings.keep_firing_for)
    return spelled(least + rank * (seconds(settings.fault_keep_firing_for) - least) // 2)


def asked(expression: str, about: str = "$mine") -> str:
    """Return the template that asks for an expression about an alert's labels."""
    return f"query (printf `{expression}` {about})"


def reading(expression: str, form: str, about: str = "$mine") -> str:
    """Return a template that writes the value of an expression about labels and `$layer`, or a question mark."""
    question = asked(expression, f"{about} $layer.Labels.layer")
    return f"{{{{ with {question} }}}}{{{{ . | first | value | printf `{form}` }}}}{{{{ else }}}}?{{{{ end }}}}"


def matchers(labels: tuple[str, ...], name: str = "$mine") -> str:
    """Return the template that sets a variable; a label that is absent has to match as empty, which `%q` of nothing does."""
    pattern = ",".join(f"{label}=%q" for label in labels)
    values = " ".join(f"$labels.{label}" for label in labels)
    return f"{{{{- {name} := printf `{pattern}` {values} -}}}}"
