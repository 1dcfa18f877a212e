"""Baselines that are missing."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP
from geluwatch.mixin.rules.alerting import SUBJECT, Alert, Recording
from geluwatch.mixin.settings import MixinSettings

_AGENTS = "{{ with printf `%.0f` $value }}{{ . }} agent{{ if ne . `1` }}s{{ end }}{{ end }}"


def recordings(_: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules: none."""
    return ()


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_baseline_missing(settings),)


def _baseline_missing(settings: MixinSettings) -> Alert:
    return Alert(
        name="GeluwatchBaselineMissing",
        tier="ticket",
        owner="model",
        summary="A model takes traffic without an armed baseline.",
        description=(
            f"{SUBJECT} has taken traffic for {settings.baseline_missing_for} without an armed baseline on {_AGENTS}: "
            "drift goes unseen there. NaN and Inf still page."
        ),
        expr=_unarmed(settings),
        hold=settings.baseline_missing_for,
    )


def _unarmed(settings: MixinSettings) -> str:
    """Return how many agents of a model version take traffic without an armed baseline."""
    unarmed = f"{queries.series(catalog.BASELINE_ARMED, settings.selector)} == 0"
    traffic = f"increase({queries.series(catalog.FORWARDS, settings.selector)}[{settings.baseline_missing_for}]) > 0"
    return queries.number(queries.chain(f"({unarmed})", "and", f"({traffic})"), *GROUP)
