"""Sentences for what the story tells of records."""

from __future__ import annotations

import math

from torch import nn

from geluwatch.cli.demo.webhook import Alert
from geluwatch.records import Certificate, Report


def certificate(given: Certificate) -> tuple[str, ...]:
    """Return a baseline's certificate in plain words, one sentence each."""
    horizons = " and ".join(map(str, given.horizons))
    limits = given.thresholds.values()
    scope = f"each layer, both sides of its GELU, over {horizons} windows"
    return (
        f"armed on {given.windows} windows, {given.left_out} left out",
        f"{len(limits)} thresholds, from {min(limits):.1f} to {max(limits):.1f} where calm is about 1: {scope}",
        f"set so that calm traffic opens at most {given.tickets_per_month:g} false tickets a month",
        f"checked by replay with each window left out: {given.exceeded} of {given.replayed} calm scores above their threshold",
    )


def census(state: str, reason: str) -> str:
    """Return the state of a site, with the reason where it is blind."""
    return f"{state}: {reason}" if reason else state


def drift(report: Report) -> str:
    """Return how far the layers in drift are beyond their thresholds."""
    most = max(report.sites.values(), key=lambda site: site.evidence if site.drifting else 0.0)
    return f"{len(report.drifting)} layers in drift, evidence up to {most.evidence:.1f} times the threshold"


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
