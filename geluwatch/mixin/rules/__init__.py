"""Recording rules and alerts, a module for each thing that goes wrong; here they are put in order and into groups.

One incident is one alert: expressions sum over pods, and layers are named in the annotation, never in the labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from geluwatch.mixin.rules import (
    agents,
    baselines,
    cost,
    drift,
    fleet,
    latency,
    memory,
    nonfinite,
    numerics,
    objectives,
    probe,
    quality,
    rollout,
    saturation,
    training,
)
from geluwatch.mixin.rules.alerting import Alert, Recording
from geluwatch.mixin.settings import TIERS, MixinSettings


class _Family(Protocol):
    """A module that knows one kind of trouble."""

    def recordings(self, settings: MixinSettings, /) -> tuple[Recording, ...]:
        """Return its recording rules, each before those that read it."""

    def alerts(self, settings: MixinSettings, /) -> tuple[Alert, ...]:
        """Return its alerts; one that has two tiers is there twice under its name."""


GROUPS: Mapping[str, tuple[_Family, ...]] = {
    "geluwatch-numbers": (nonfinite, memory, numerics, training),
    "geluwatch-drift": (drift, probe, saturation),
    "geluwatch-agents": (agents, rollout),
    "geluwatch-fleet": (fleet, baselines),
    "geluwatch-service": (latency, quality, cost),
    "geluwatch-objectives": (objectives,),
}
"""The families of each rule group, which Prometheus evaluates in order; groups do not wait for each other. A family stands in
one group with those whose recordings it reads."""


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return every recording rule, group by group."""
    return tuple(rule for families in GROUPS.values() for rule in recorded(families, settings))


def recorded(families: tuple[_Family, ...], settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules of some families."""
    return tuple(rule for family in families for rule in family.recordings(settings))


def alerted(families: tuple[_Family, ...], settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts of some families, pages first."""
    found = [alert for family in families for alert in family.alerts(settings)]
    return tuple(sorted(found, key=lambda alert: TIERS.index(alert.tier)))


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return every alert, pages first; one that has two tiers is there twice under its name."""
    return alerted(tuple(family for families in GROUPS.values() for family in families), settings)
