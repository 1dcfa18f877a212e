"""Settings refuse what cannot work, in a sentence that names the field and the value."""

from __future__ import annotations

import math
import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from geluwatch.config import Config
from geluwatch.errors import ConfigError
from geluwatch.profiles import PROFILES


def test_the_default_is_valid_and_frozen() -> None:
    """The default needs no argument and cannot be changed afterwards."""
    with pytest.raises(FrozenInstanceError):
        Config().window_seconds = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("name", ["window_seconds", "flush_seconds", "tickets_per_month", "pages_per_quarter", "cost_budget"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "60"])
def test_spans_and_rates_must_be_positive_numbers(name: str, value: object) -> None:
    """Zero, negatives, NaN, infinity, booleans and text are refused by name and value."""
    with pytest.raises(ConfigError, match=rf"^{name} must be a positive finite number, got {re.escape(repr(value))}\.$"):
        Config(**{name: value})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    "name", ["rows_per_window", "rows_per_forward", "minimum_rows", "breaker_limit", "pending_bytes", "incidents_kept"]
)
@pytest.mark.parametrize("value", [0, -3, 1.5, True, None])
def test_counts_must_be_whole_numbers_from_one(name: str, value: object) -> None:
    """Zero, negatives, fractions, booleans and None are refused by name and value."""
    with pytest.raises(ConfigError, match=rf"^{name} must be a whole number of at least 1, got {re.escape(repr(value))}\.$"):
        Config(**{name: value})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("horizons", [(), (4, 1), (1, 1, 4), (0, 4), (1.0, 4.0), (True,)])
def test_horizons_must_ascend_from_one(horizons: tuple[object, ...]) -> None:
    """No horizon, disorder, repeats, zero and fractions are refused."""
    with pytest.raises(ConfigError, match="horizons must be"):
        Config(horizons=horizons)  # type: ignore[arg-type]  # that is the point


def test_a_cost_budget_above_the_whole_is_refused() -> None:
    """More than all of the time cannot be spent; the message gives an example."""
    with pytest.raises(ConfigError, match=r"cost_budget must be a share of at most 1, got 5; 0\.01 is one percent"):
        Config(cost_budget=5)


@pytest.mark.parametrize("value", [-0.05, math.nan, math.inf, True, "5 %"])
def test_a_tolerance_is_a_positive_number_or_zero(value: object) -> None:
    """Zero tolerates no shift; less than nothing, NaN, infinity, booleans and text are refused by name and value."""
    assert 0 == Config(tolerance=0).tolerance
    with pytest.raises(ConfigError, match=rf"^tolerance must be a positive finite number, got {re.escape(repr(value))}\.$"):
        Config(tolerance=value)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("value", ["Lean", "", None, 1, ["lean"]])
def test_a_profile_is_one_of_three(value: object) -> None:
    """Anything else is refused, and the message lists them."""
    assert ["lean", "standard", "full"] == [Config(profile=name).profile for name in PROFILES]
    with pytest.raises(ConfigError, match=rf"^profile must be one of lean, standard, full, got {re.escape(repr(value))}\.$"):
        Config(profile=value)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("value", [1000, 1e9, math.inf])
def test_the_limit_of_a_bundle_is_a_number_of_bytes(value: object) -> None:
    """It is a whole number of bytes that something fits in."""
    with pytest.raises(ConfigError, match=rf"^incident_bytes must be .*{re.escape(repr(value))}"):
        Config(incident_bytes=value)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("name", ["enabled", "compiled", "gradients", "ranges", "incident_inputs"])
@pytest.mark.parametrize("value", ["0", "false", "", 0, 1, None])
def test_switches_are_true_or_false(name: str, value: object) -> None:
    """Text from an environment, which is true whatever it says, numbers and None are refused by name and value."""
    assert [True, False] == [getattr(Config(**{name: switch}), name) for switch in (True, False)]  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"^{name} must be True or False, got {re.escape(repr(value))}\.$"):
        Config(**{name: value})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("value", [3, True, "mask", ()])
def test_padding_is_a_function_or_none(value: object) -> None:
    """What cannot be called is refused here, not counted as a failure in every pass."""
    assert [None, max] == [Config(padding=None).padding, Config(padding=max).padding]
    with pytest.raises(ConfigError, match=rf"^padding must be a function or None, got {re.escape(repr(value))}; "):
        Config(padding=value)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("value", ["", 3, False, b"folder"])
def test_the_folder_of_bundles_is_a_path_or_none(value: object) -> None:
    """An empty path, as of a variable that is not set, is no folder; nor is a number, a switch or bytes."""
    assert [None, "here", Path("here")] == [Config(incidents=path).incidents for path in (None, "here", Path("here"))]
    with pytest.raises(ConfigError, match=rf"^incidents must be the path of a folder or None, got {re.escape(repr(value))}\.$"):
        Config(incidents=value)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("setting", ["horizons", "gelu_classes"])
def test_lists_are_taken_as_tuples_and_single_values_refused(setting: str) -> None:
    """A list becomes a tuple, so that a Config stays hashable and `isinstance` takes its classes; a value alone is told about the comma."""
    one = {"horizons": 4, "gelu_classes": dict}[setting]
    assert (one,) == getattr(Config(**{setting: [one]}), setting)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ConfigError, match=rf"{setting} must be a tuple, got .*; one entry is written with a comma behind it"):
        Config(**{setting: one})  # type: ignore[arg-type]  # that is the point


def test_gelu_classes_must_be_classes() -> None:
    """An instance in place of its class is refused."""
    with pytest.raises(ConfigError, match="pass the class, not an instance"):
        Config(gelu_classes=(object(),))  # type: ignore[arg-type]  # that is the point


def test_windows_may_be_closed_by_hand() -> None:
    """None for the window's length is the one value that is no number."""
    assert Config(window_seconds=None).window_seconds is None


def test_errors_are_value_errors_too() -> None:
    """A caller that knows nothing of geluwatch's errors may catch ValueError."""
    with pytest.raises(ValueError, match="minimum_rows"):
        Config(minimum_rows=0)


def test_every_setting_is_given_by_name() -> None:
    """Settings are keyword-only, so that adding one breaks no caller."""
    assert all(field.kw_only for field in fields(Config))
