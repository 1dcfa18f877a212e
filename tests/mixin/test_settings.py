"""Settings of the artefacts: what is accepted, and what the refusals say."""

from __future__ import annotations

import re

import pytest

from geluwatch.errors import ConfigError
from geluwatch.mixin.settings import MixinSettings, seconds, spelled


@pytest.mark.parametrize(("written", "expected"), [("1s", 1), ("5m", 300), ("6h", 21600), ("1d", 86400)])
def test_durations_are_read_in_seconds(written: str, expected: int) -> None:
    """A duration of each unit is read as its number of seconds."""
    assert expected == seconds(written)


@pytest.mark.parametrize(("total", "expected"), [(1, "1s"), (90, "90s"), (1200, "20m"), (86400, "1d"), (2 * 604800, "2w")])
def test_durations_are_written_in_the_largest_unit_that_fits(total: int, expected: str) -> None:
    """A number of seconds is written as one whole number and unit, and read back as the same."""
    assert expected == spelled(total)
    assert total == seconds(expected)


@pytest.mark.parametrize("fault", ["10m", "601s", "5m"])
def test_faults_outlast_what_they_keep_quiet(fault: str) -> None:
    """Settings in which a fault would end with or before the drift that it keeps quiet are refused with both values."""
    with pytest.raises(ConfigError, match=rf"^fault_keep_firing_for must be longer than keep_firing_for \(10m\) .* got '{fault}'\.$"):
        MixinSettings(fault_keep_firing_for=fault)


@pytest.mark.parametrize("written", ["", "5", "m", "0m", "-5m", "1.5h", "5 m", "1h30m", "5M", None, 5])
def test_other_durations_are_refused_by_name_and_value(written: object) -> None:
    """A duration that is no whole number and unit is refused, and the message holds field and value."""
    with pytest.raises(ConfigError, match=rf"^drift_for must be .*{re.escape(repr(written))}\.$"):
        MixinSettings(drift_for=written)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "field", ["rate_window", "grace", "page_for", "agent_missing_for", "agent_memory", "baseline_missing_for", "keep_firing_for"]
)
def test_every_duration_is_checked(field: str) -> None:
    """No duration reaches a rule unchecked."""
    with pytest.raises(ConfigError, match=field):
        MixinSettings(**{field: "soon"})  # type: ignore[arg-type]


@pytest.mark.parametrize("selector", ["", 'job="minilm"', 'job=~".+"', 'job="a",cluster!~"b|c"', r'job="a\"b"'])
def test_matchers_of_target_labels_are_accepted(selector: str) -> None:
    """Any list of PromQL matchers over target labels is a selector."""
    assert selector == MixinSettings(selector=selector).selector


@pytest.mark.parametrize("selector", ["job", "{job='a'}", "job='a'", 'job="a",', 'job="a" cluster="b"', 'job="a"} or up{'])
def test_other_selectors_are_refused(selector: str) -> None:
    """What is no list of matchers is refused before it can break a query."""
    with pytest.raises(ConfigError, match="selector must be PromQL matchers"):
        MixinSettings(selector=selector)


@pytest.mark.parametrize("label", ["model", "layer", "le", "kind"])
def test_labels_that_targets_do_not_have_are_refused(label: str) -> None:
    """A selector on a label of our own is refused, since `up` lacks it and would match nothing."""
    with pytest.raises(ConfigError, match=f"{label!r}"):
        MixinSettings(expected_targets=f'{label}="x"')


@pytest.mark.parametrize("url", ["runbooks", "ftp://host/x", "http://host/a b", "http://host/{{ .x }}", ""])
def test_unusable_urls_are_refused(url: str) -> None:
    """A base that is no plain http or https URL is refused."""
    with pytest.raises(ConfigError, match=r"runbook_base must be an http or https URL"):
        MixinSettings(runbook_base=url)


@pytest.mark.parametrize(
    "severities", [{}, {"page": "critical"}, {"page": "critical", "ticket": ""}, {"page": "a", "ticket": "b", "x": "c"}]
)
def test_every_tier_needs_a_severity(severities: dict[str, str]) -> None:
    """A map that leaves out a tier, or knows another, is refused."""
    with pytest.raises(ConfigError, match="severities must give a label value for each of page, ticket"):
        MixinSettings(severities=severities)  # type: ignore[arg-type]


def test_quick_settings_wait_for_seconds_only() -> None:
    """At quick settings every alert of a demonstration can fire within half a minute."""
    quick = MixinSettings.quick()
    waits = (quick.rate_window, quick.drift_for, quick.page_for, quick.agent_missing_for, quick.baseline_missing_for, quick.keep_firing_for)
    assert all(seconds(wait) <= 20 for wait in waits)
    assert "1s" == quick.evaluation_interval
