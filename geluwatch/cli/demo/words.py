"""Sentences for what the story tells of records."""

from __future__ import annotations

import math

from torch import nn

from geluwatch.cli.demo.webhook import Alert
from geluwatch.records import Certificate, PointReport, Report


def certificate(given: Certificate) -> tuple[str, ...]:
    """Return a baseline's certificate in plain words, one sentence each."""
    horizons = " and ".join(map(str, given.horizons))
    low, high = given.interval
    paging = f"drift is a page from surprise {given.page_limit:.1f} on, {given.pages_per_quarter:g} in three months by chance"
    replayed = f"{given.observed} false alarms where {given.requested:.0f} were asked for (95 % interval {low:.0f} to {high:.0f})"
    return (
        f"armed on {given.windows} windows, {given.left_out} left out, judged over {horizons} windows",
        f"they resemble each other so much that they are worth {given.looks:.0f} independent looks",
        f"drift is a ticket from surprise {given.ticket_limit:.1f} on, which calm traffic passes {given.tickets_per_month:g} times a month",
        paging if given.paging else given.paging_reason.rstrip("."),
        f"checked by replay, each quarter by limits from the others: {replayed}",
    )


def census(state: str, reason: str) -> str:
    """Return the state of a site, with the reason where it is blind."""
    return f"{state}: {reason}" if reason else state


def drift(report: Report) -> str:
    """Return how many layers drift, and how far the farthest of them is."""
    layers = {layer for layer, _ in report.sites}
    most = max((site for site in report.sites.values() if site.layer in report.drifting), key=_known_evidence)
    return f"{len(report.drifting)} of {len(layers)} layers in drift, evidence up to {most.evidence:.1f} (surprise {most.surprise:.0f})"


def origin(report: Report) -> str:
    """Return where drift comes from and what changed, as far as the report names it."""
    scopes = {
        "traffic": "most layers moved alike: the traffic changed",
        "model": "the others did not move alike: the model changed there",
        "unknown": "the layers do not tell whether the traffic changed or the model",
    }
    named = (f"scope {report.scope}, {scopes[report.scope]}" if report.scope else "", report.cause or _figures(report))
    return "\n".join(part for part in named if part)


def _figures(report: Report) -> str:
    """Return how the values of the first layer in drift differ, for want of a cause that stands out."""
    first = (site for site in report.sites.values() if site.layer == report.drifting[0] and site.panel is not None)
    most = max(first, key=_known_evidence, default=None)
    if most is None or most.panel is None:
        return ""
    return (
        f"no one cause stands out: there values moved by {most.panel.wasserstein:.3f} of their standard deviation, "
        f"the mean by {most.panel.mean_shift:+.3f}, while the channels' squared deviations are {most.score:.1f} times those of calm windows"
    )


def _known_evidence(site: PointReport) -> float:
    return 0.0 if math.isnan(site.evidence) else site.evidence


def description(alert: Alert) -> str:
    """Return an alert's description in one line: of the layers that it lists, the first."""
    head, *listed = alert.annotations.get("description", "").strip().splitlines() or [""]
    more = f", and {len(listed) - 1} more" if len(listed) > 1 else ""
    return " ".join([head, *(line.strip() for line in listed[:1])]) + more


def weights(model: nn.Module) -> str:
    """Return how many weights a model has."""
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{count / 1e6:.1f} million weights" if count >= 1e6 else f"{count:,} weights"


def loss(value: float) -> str:
    """Return a loss."""
    return f"{value:.2f}" if math.isfinite(value) else "NaN"
