"""For how long a history of windows is kept, and how large it may grow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from geluwatch.errors import ConfigError

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What of a model's windows is kept, by age; the default is measured in docs/history.md.

    Raises:
        ConfigError: A value is no positive number, or a coarser resolution is kept for less time than a finer one.
    """

    raw_hours: float = 24.0
    """Windows are kept one by one until the hour they belong to is so old; then they are merged into that hour."""

    hourly_days: float = 14.0
    """Hours are kept until the day they belong to is so old; then they are merged into that day."""

    daily_days: float = 400.0
    """Days are kept for so long, then dropped: a year, and the weeks to compare it with."""

    most_bytes: int = 2**30
    """Most bytes that all versions of a model may take together: beyond it the oldest windows are merged early, then the oldest
    hours, then the oldest days dropped."""

    moments_hours: float = 6.0
    """Each process keeps the channel moments of one window in so many hours: they take ten times as much as its histograms."""

    def __post_init__(self) -> None:
        for name in ("raw_hours", "hourly_days", "daily_days", "moments_hours", "most_bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
                raise ConfigError(f"{name} of a retention must be a positive finite number, got {value!r}.")
        if not self.raw_hours / 24 <= self.hourly_days <= self.daily_days:
            raise ConfigError(
                "A retention must keep days for longer than hours, and hours for longer than single windows, "
                f"got daily_days={self.daily_days!r}, hourly_days={self.hourly_days!r} and raw_hours={self.raw_hours!r}."
            )
