"""How long a history is kept: what makes no sense is refused, in a sentence that names the field and the value."""

from __future__ import annotations

import math
import re

import pytest

from geluwatch.config import Config
from geluwatch.errors import ConfigError
from geluwatch.retention import Retention


@pytest.mark.parametrize("name", ["raw_hours", "hourly_days", "daily_days", "most_bytes", "moments_hours"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "24"])
def test_ages_and_size_are_positive_numbers(name: str, value: object) -> None:
    """Zero, negatives, NaN, infinity, booleans and text are refused by name and value."""
    with pytest.raises(ConfigError, match=rf"^{name} of a retention must be a positive finite number, got {re.escape(repr(value))}\.$"):
        Retention(**{name: value})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("ages", [{"raw_hours": 24 * 15}, {"hourly_days": 401}, {"daily_days": 13}])
def test_what_is_coarser_is_kept_for_longer(ages: dict[str, float]) -> None:
    """Hours that go before their windows, or days before their hours, are refused."""
    with pytest.raises(ConfigError, match=r"^A retention must keep days for longer than hours, and hours for longer than single windows"):
        Retention(**ages)  # type: ignore[arg-type]  # mypy takes each for any of the fields


def test_a_watch_keeps_a_history_unless_told_otherwise() -> None:
    """The default retention is a watch's; None keeps nothing, and anything else is refused."""
    assert Retention() == Config().history
    assert Config(history=None).history is None
    with pytest.raises(ConfigError, match=r"^history must be a Retention or None, got 24; for example Retention\(raw_hours=6\)\.$"):
        Config(history=24)  # type: ignore[arg-type]  # that is the point
