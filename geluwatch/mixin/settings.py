"""Settings of the rendered artefacts: which targets they look at, how long they wait, where they link to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Self

from geluwatch.catalog import METRICS, MODEL_LABELS
from geluwatch.errors import ConfigError
from geluwatch.mixin.thresholds import Thresholds

Tier = Literal["page", "ticket", "notice"]
"""Wakes somebody; waits for working hours; tells nobody and only keeps other alerts quiet."""
TIERS: tuple[Tier, ...] = ("page", "ticket", "notice")

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"([1-9]\d*)([smhdw])")
_MATCHER = re.compile(r'([a-zA-Z_]\w*)(?:=~|!~|!=|=)"(?:[^"\\\n]|\\.)*"')
_MATCHERS = re.compile(rf"{_MATCHER.pattern}(?:,{_MATCHER.pattern})*")
DURATIONS = (
    "rate_window",
    "grace",
    "drift_for",
    "page_for",
    "agent_missing_for",
    "agent_memory",
    "baseline_missing_for",
    "keep_firing_for",
    "fault_keep_firing_for",
    "blind_for",
    "idle_after",
    "service_for",
    "rollout_window",
    "usual_range",
    "compare_offset",
    "baseline_age",
)
"""The fields that are one duration each."""
_SEVERITIES: Mapping[Tier, str] = MappingProxyType({"page": "critical", "ticket": "warning", "notice": "info"})
_OWN_LABELS = {*MODEL_LABELS, *(label for metric in METRICS for label in metric.labels)}


@dataclass(frozen=True, slots=True, kw_only=True)
class MixinSettings:
    """What the artefacts are rendered with; the default is what the repository holds and production loads.

    Durations are one whole number and one unit, as Prometheus writes them: "30s", "5m", "6h", "1d".

    Raises:
        ConfigError: A value is unusable; the message names the field, the value and what to write instead.
    """

    selector: str = ""
    """Matchers of target labels, such as `job="minilm",cluster="eu"`, added to every query; empty selects all."""

    expected_targets: str = ""
    """Matchers of targets that must carry an agent; empty: only those that carried one before are missed."""

    rate_window: str = "5m"
    """Range of every increase in the alert rules; at least four scrape intervals."""

    grace: str = "1h"
    """How old an agent may be when the server first sees it, for what its counters hold by then to be news."""

    drift_for: str = "15m"
    """How long a model has to stay in drift before its ticket."""

    page_for: str = "2m"
    """How long drift, a gross fault or an overflow ahead has to last before it is told: two windows of the default length."""

    agent_missing_for: str = "15m"
    """How long an agent has to be gone before its ticket."""

    agent_memory: str = "1d"
    """How long an agent that is gone stays expected."""

    baseline_missing_for: str = "6h"
    """How long a model may take traffic without a baseline before its ticket."""

    blind_for: str = "30m"
    """How long a GELU may be blind, or an agent out of order or over its budget, while there is traffic, before its ticket."""

    idle_after: str = "30m"
    """How long a pod may be without a forward pass before what its agent last said of drift and faults counts no more."""

    service_for: str = "15m"
    """How long latency, accuracy, cost or memory has to be out of line before its ticket."""

    rollout_window: str = "30m"
    """How long after a new version of a model came up its tickets are kept quiet."""

    usual_range: str = "1d"
    """Stretch of the past that tells what latency, accuracy and cost usually are."""

    compare_offset: str = "1w"
    """How far back the same hour of an ordinary week lies."""

    baseline_age: str = "90d"
    """Age from which a baseline is stale."""

    burn_windows: tuple[str, ...] = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
    """Ranges over which error budgets are watched: shortest first, seven of them (see `rules.objectives`)."""

    keep_firing_for: str = "10m"
    """How long page and drift ticket outlive their cause, so that a flapping cause stays one incident."""

    fault_keep_firing_for: str = "20m"
    """The same for faults that are read from windows: longer, for the drift that they keep quiet ends a window after them.
    The page of drift lies between the two, that of an overflow ahead as far beyond (see `rules.alerting.lasting`)."""

    evaluation_interval: str | None = None
    """Interval of the rule groups; None leaves it to the server's configuration."""

    severities: Mapping[Tier, str] = field(default_factory=lambda: _SEVERITIES)
    """Value of the `severity` label for each tier."""

    canary: str = 'track="canary"'
    """Matchers of the agents that carry a canary; all others are stable. A constant label or one of the target."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    """Limits of what is no drift and so has no calibrated one."""

    runbook_base: str | None = None
    """URL under which the runbooks are published; None links to the copies that the agents serve themselves."""

    dashboard_base: str | None = None
    """URL of Grafana; None links to the dashboard by its path."""

    @classmethod
    def quick(cls) -> Self:
        """Return settings whose waits last seconds, for demonstrations and tests at a scrape interval of one second."""
        return cls(
            rate_window="10s",
            drift_for="5s",
            page_for="3s",
            agent_missing_for="10s",
            agent_memory="10m",
            baseline_missing_for="20s",
            keep_firing_for="10s",
            fault_keep_firing_for="20s",
            blind_for="5s",
            idle_after="30s",
            service_for="5s",
            rollout_window="20s",
            usual_range="1m",
            compare_offset="2m",
            baseline_age="1h",
            burn_windows=("5s", "10s", "20s", "30s", "1m", "3m", "6m"),
            evaluation_interval="1s",
        )

    def __post_init__(self) -> None:
        for name in ("selector", "expected_targets"):
            _check_matchers(name, getattr(self, name))
        for name in DURATIONS:
            seconds(getattr(self, name), name)
        if seconds(self.fault_keep_firing_for) < seconds(self.keep_firing_for) + 2:
            raise ConfigError(
                f"fault_keep_firing_for must be longer than keep_firing_for ({self.keep_firing_for}) by two seconds at least, for faults "
                f"keep drift quiet; got {self.fault_keep_firing_for!r}."
            )
        if self.evaluation_interval is not None:
            seconds(self.evaluation_interval, "evaluation_interval")
        if not re.fullmatch(_MATCHERS, self.canary):
            raise ConfigError(f'canary must be PromQL matchers without braces, such as track="canary"; got {self.canary!r}.')
        if len(self.burn_windows) != 7 or list(self.burn_windows) != sorted(self.burn_windows, key=lambda w: seconds(w, "burn_windows")):
            raise ConfigError(f"burn_windows must be seven durations, the shortest first, got {self.burn_windows!r}.")
        for name in ("runbook_base", "dashboard_base"):
            _check_url(name, getattr(self, name))
        if set(self.severities) != set(TIERS) or not all(isinstance(value, str) and value for value in self.severities.values()):
            raise ConfigError(f"severities must give a label value for each of {', '.join(TIERS)}, got {dict(self.severities)!r}.")


def seconds(duration: str, name: str = "duration") -> int:
    """Return a duration such as "5m" in seconds.

    Args:
        duration: One whole number and one of the units s, m, h, d, w.
        name: What the duration is, for the message.

    Raises:
        ConfigError: It is written in another way.
    """
    match = _DURATION.fullmatch(duration) if isinstance(duration, str) else None
    if match is None:
        raise ConfigError(f'{name} must be a whole number and a unit of s, m, h, d or w, such as "5m"; got {duration!r}.')
    return int(match[1]) * _UNIT_SECONDS[match[2]]


def spelled(total: int) -> str:
    """Return whole seconds as a duration, in the largest unit that needs no fraction."""
    unit = next(unit for unit in reversed(_UNIT_SECONDS) if total % _UNIT_SECONDS[unit] == 0)
    return f"{total // _UNIT_SECONDS[unit]}{unit}"


def _check_matchers(name: str, text: str) -> None:
    if text and not _MATCHERS.fullmatch(text):
        raise ConfigError(f'{name} must be PromQL matchers without braces, such as job="minilm",cluster="eu"; got {text!r}.')
    for label in _MATCHER.findall(text):
        if label in _OWN_LABELS:
            raise ConfigError(f"{name} may only match labels of targets, which `up` has too; {label!r} in {text!r} is geluwatch's own.")


def _check_url(name: str, url: str | None) -> None:
    if url is not None and not re.fullmatch(r"https?://[^\s\"'<>{}]+", url):
        raise ConfigError(f"{name} must be an http or https URL without blanks, quotes or braces, got {url!r}.")
