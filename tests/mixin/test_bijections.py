"""What belongs together is there together: each alert with all that explains, shows, proves and routes it, each metric with its page."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from geluwatch import catalog
from geluwatch.mixin import handbook
from geluwatch.mixin.rules import alerts, recordings
from geluwatch.mixin.ruletests import rule_tests
from geluwatch.mixin.runbooks import names
from geluwatch.mixin.settings import MixinSettings
from tests.mixin import firing

ALERTS = {alert.name for alert in alerts(MixinSettings())}
BROKEN = Path(__file__).parent / "broken"


def test_alerts_and_runbooks() -> None:
    """Each alert has a runbook, and each runbook an alert."""
    assert ALERTS == set(names())
    assert ALERTS == {Path(path).stem for path in handbook.files(MixinSettings()) if Path(path).stem.startswith("Geluwatch")}


def test_alerts_and_rules(rules: list[dict[str, Any]]) -> None:
    """Each alert and each recording is in the rule files, and nothing else is."""
    assert ALERTS == {rule["alert"] for rule in rules if "alert" in rule}
    assert {recording.name for recording in recordings(MixinSettings())} == {rule["record"] for rule in rules if "record" in rule}


def test_alerts_and_panels(dashboards: dict[str, dict[str, Any]], panels_of: Callable[[dict[str, Any]], list[dict[str, Any]]]) -> None:
    """Each alert's runbook is linked from a panel, and no panel links to another one."""
    links = [link for dashboard in dashboards.values() for panel in panels_of(dashboard) for link in panel.get("links", ())]
    assert ALERTS == {name for link in links for name in re.findall(r"Geluwatch\w+", f"{link['title']} {link['url']}")}


def test_alerts_and_stories() -> None:
    """Each alert is told by stories, and each story is about an alert."""
    stories = {test["name"].split()[0] for document in rule_tests(MixinSettings()).values() for test in document["tests"]}
    assert ALERTS == stories


def test_alerts_and_mutations() -> None:
    """Each alert is broken in at least three ways, and each way of breaking belongs to an alert."""
    broken = {f"Geluwatch{path.stem}": yaml.safe_load(path.read_text()) for path in BROKEN.glob("*.yaml")}
    assert ALERTS == set(broken)
    assert [] == [name for name, changes in broken.items() if len(changes) < 3]


def test_alerts_and_routes() -> None:
    """The route tests of Alertmanager go through each alert."""
    assert ALERTS == {alert.name for alert in firing.ALERTS}


_KINDS = {
    "idle": r"idle|traffic|nobody asks|closed no window",
    "restart": r"restart|start(?:s|ed)? over|came up anew|back to the very value|has yet to|back within|born above zero|just started",
    "baseline": r"baseline|no limit|limit is known|edges|not known",
}
"""Words in the names of stories that tell of no traffic, of a restart, and of a baseline that lacks something."""

_STANDS = "a reading of the last closed window, which stands while none closes and is gone after a restart until one closes"
_COUNTED = "a count of what went wrong, which nothing but a pass or a step can raise"
_NO_BASELINE = "no series that the rule reads depends on a baseline"

_NEEDLESS = {
    "idle": {
        **dict.fromkeys(("GrossFault", "KernelMismatch", "OverflowAhead", "PodDrift"), _STANDS),
        **dict.fromkeys(("OutOfMemory", "TrainingFault"), _COUNTED),
        "MemoryPressure": "memory runs short with traffic or without",
        "QuantizedAccuracy": "the application tells it, whatever the traffic",
        "Rollout": "it compares versions, not traffic",
    },
    "restart": {
        **dict.fromkeys(("ActivationDrift", "GrossFault", "KernelMismatch", "OverflowAhead", "PodDrift"), _STANDS),
        "CostUp": "cost is a gauge, and samples are counted as rates, which restarts do not lower",
        "QuantizedAccuracy": "the application tells it anew after a restart",
        "TrainingFault": "its counts are read as those of NonFiniteActivations are, whose stories restart",
    },
    "baseline": dict.fromkeys(
        (
            *("AccuracyDrop", "AgentFaulty", "AgentMissing", "AgentOverBudget", "CostUp", "ErrorBudgetBurn", "KernelMismatch"),
            *("LatencySpike", "MemoryPressure", "NonFiniteActivations", "OutOfMemory", "OverflowAhead", "QuantizedAccuracy"),
            *("Rollout", "TrainingFault"),
        ),
        _NO_BASELINE,
    ),
}
"""Why an alert has no story of a kind."""


@pytest.mark.parametrize("kind", _KINDS)
def test_every_alert_has_stories_of_each_kind_or_a_reason(kind: str) -> None:
    """Each alert is seen idle, after a restart and without a baseline, or it is written down why that cannot matter."""
    told = [test["name"].split(" ", 1) for document in rule_tests(MixinSettings()).values() for test in document["tests"]]
    seen = {alert for alert, story in told if re.search(_KINDS[kind], story)}
    assert {f"Geluwatch{name}" for name in _NEEDLESS[kind]} >= ALERTS - seen
    assert ALERTS >= {f"Geluwatch{name}" for name in _NEEDLESS[kind]}


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_every_alert_is_seen_firing_waiting_and_silent(name: str) -> None:
    """An alert fires in one story; in one it is silent before it fires, unless it does not wait; and in one all the time."""
    told = [test for document in rule_tests(MixinSettings()).values() for test in document["tests"] if test["name"].split()[0] == name]
    checks = [[bool(check["exp_alerts"]) for check in test["alert_rule_test"]] for test in told if test["alert_rule_test"]]
    assert any(any(seen) for seen in checks)
    assert any(not any(seen) for seen in checks)
    assert any(not seen[0] and any(seen) for seen in checks)


def test_metrics_and_their_page(rendered: dict[str, bytes]) -> None:
    """Each metric of the catalogue is on the page of metrics, and each that is named there is in the catalogue or recorded."""
    page = rendered["docs/metrics.md"].decode()
    named = set(re.findall(r"(?<![:\w])geluwatch_\w+", page))
    assert [] == [metric.series for metric in catalog.METRICS if metric.series not in named and metric.name not in named]
