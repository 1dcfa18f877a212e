"""Limits of the alerts that are not about drift, whose own limits the baseline gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from geluwatch.catalog import LATENCY_EDGES
from geluwatch.errors import ConfigError

FASTEST_BURN = 14.4
"""How many times too fast an error budget has to burn for an hour to page: two percent of thirty days' budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What is told apart from the ordinary; each is an effect that somebody would act on.

    Raises:
        ConfigError: A value is out of its range; the message names the field, the value and the range.
    """

    latency_seconds: float = 0.25
    """Duration of a forward pass up to which users are content; one of `catalog.LATENCY_EDGES`, for histograms know no other."""

    latency_objective: float = 0.99
    """Share of forward passes that should be that quick."""

    availability_objective: float = 0.999
    """Share of forward passes that should return at all."""

    latency_factor: float = 2.0
    """How many times the usual 95 % quantile of latency is a spike."""

    accuracy_drop: float = 0.02
    """By how much accuracy, as the application reports it, may fall below its usual level."""

    quantized_drop: float = 0.01
    """By how much a quantised model may be less accurate than the original."""

    cost_factor: float = 1.2
    """How many times its usual cost a million inferences may cost."""

    memory_share: float = 0.9
    """Share of the memory that may be used before that is told."""

    canary_distance: float = 0.02
    """KS distance of canary from stable that is not looked at, however alike the stable pods are."""

    canary_factor: float = 3.0
    """How many times farther a canary has to be from stable than the farthest stable pod is from its fleet."""

    saturation: float = 0.2
    """By how much the share of closed or of open gates may rise above the baseline's."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
                raise ConfigError(f"{item.name} must be a positive finite number, got {value!r}.")
            if item.name not in _ABOVE_ONE and item.name != "latency_seconds" and value >= 1:
                raise ConfigError(f"{item.name} must be a share below 1, got {value!r}; 0.01 is one percent.")
            if item.name.endswith("_objective") and (1 - value) * FASTEST_BURN >= 1:
                raise ConfigError(
                    f"{item.name} must be above {1 - 1 / FASTEST_BURN:.3f}, got {value!r}: of a lower objective even passes that all "
                    f"fail do not burn the budget {FASTEST_BURN:g} times too fast, so it would never page; raise latency_seconds instead."
                )
            if item.name in _ABOVE_ONE and value <= 1:
                raise ConfigError(f"{item.name} must be above 1, got {value!r}; 2 is twice the usual.")
        if self.latency_seconds not in LATENCY_EDGES:
            edges = ", ".join(f"{edge:g}" for edge in LATENCY_EDGES)
            raise ConfigError(f"latency_seconds must be an edge of the latency histogram ({edges}), got {self.latency_seconds!r}.")


_ABOVE_ONE = frozenset({"latency_factor", "cost_factor", "canary_factor"})
