"""Unit tests of the alert rules in promtool's format: each alert fires when it should, not a moment before, and ends.

Their series start far from zero and grow evenly, so that Prometheus 2 (whose ranges hold both ends) and 3 (whose ranges
leave the older end out) round to the same numbers. All times follow the settings, so that quick rules are tested too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from geluwatch.catalog import Metric
from geluwatch.mixin.alerts import DASHBOARD_UID, Alert, annotations, severity
from geluwatch.mixin.settings import MixinSettings, seconds

RULE_FILE = "geluwatch.rules.yaml"
_STEPS_A_WINDOW = 10

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Expected:
    """One alert that must fire, with everything that tells people about it."""

    labels: Labels
    """The incident's labels, severity left out."""
    description: str
    agent: str | None = None
    """Instance whose listener the runbook link opens; None where no agent is left."""


@dataclass(frozen=True, slots=True)
class Check:
    """What fires at one moment, given in steps since the start; nothing if `expected` is empty."""

    step: int
    expected: tuple[Expected, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One story told by series, and what the alert makes of it."""

    alert: Alert
    name: str
    series: Mapping[str, str]
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """The time grid of the tests of some settings."""

    settings: MixinSettings
    step: int = field(init=False)
    """Seconds between two samples and between two evaluations."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", max(1, seconds(self.settings.rate_window) // _STEPS_A_WINDOW))

    def steps(self, duration: str) -> int:
        """Return the steps after which a duration has passed."""
        return -(-seconds(duration) // self.step)


def name(metric: Metric | str, **labels: str) -> str:
    """Return a series as it is written in an exposition."""
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{metric if isinstance(metric, str) else metric.series}{{{inside}}}"


def flat(value: float, steps: int) -> str:
    """Return the same value for some steps."""
    return ramp(value, 0, steps)


def ramp(start: float, slope: float, steps: int) -> str:
    """Return a value that grows evenly for some steps."""
    return f"{start:g}+{slope:g}x{steps - 1}"


def gone(steps: int) -> str:
    """Return no value for some steps, told at once as a failed scrape tells it."""
    return f"stale _x{steps - 1}"


def absent(steps: int) -> str:
    """Return no value for some steps before there was one."""
    return f"_x{steps}"


def document(cases: tuple[Case, ...], settings: MixinSettings) -> dict[str, Any]:
    """Return the test file of some cases."""
    step = f"{Scale(settings).step}s"
    return {
        "rule_files": [f"../{RULE_FILE}"],
        "evaluation_interval": step,
        "tests": [_test(case, settings) for case in cases],
    }


def _test(case: Case, settings: MixinSettings) -> dict[str, Any]:
    step = Scale(settings).step
    return {
        "name": f"{case.alert.name}: {case.name}",
        "interval": f"{step}s",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{check.step * step}s",
                "alertname": case.alert.name,
                "exp_alerts": [_expected(case.alert, expected, settings) for expected in check.expected],
            }
            for check in case.checks
        ],
    }


def _expected(alert: Alert, expected: Expected, settings: MixinSettings) -> dict[str, Any]:
    job, model = expected.labels["job"], expected.labels.get("model")
    query = f"var-job={job}" + (f"&var-model={model}" if model else "")
    return {
        "exp_labels": {**expected.labels, "severity": severity(alert, settings)},
        "exp_annotations": {
            "summary": alert.summary,
            "description": expected.description,
            "runbook_url": _runbook(alert, expected.agent, settings),
            "dashboard_url": f"{(settings.dashboard_base or '').rstrip('/')}/d/{DASHBOARD_UID}?{query}",
        },
    }


def _runbook(alert: Alert, agent: str | None, settings: MixinSettings) -> str:
    if settings.runbook_base is not None:
        return annotations(alert, settings)["runbook_url"]
    return f"http://{agent}/runbooks/{alert.name}" if agent else f"runbooks/{alert.name}.md"
