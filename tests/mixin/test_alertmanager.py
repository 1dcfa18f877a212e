"""The example configuration of Alertmanager, judged by amtool, and the tables that it is made from."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from geluwatch.mixin.alertmanager import EXPLANATIONS, QUIET_IN_ROLLOUT, example, inhibit_rules
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.settings import MixinSettings
from tests.mixin.conftest import program
from tests.mixin.firing import ALERTS, BY_NAME, SETTINGS, Labels, find, labels_of

RENAMED = replace(SETTINGS, severities={"page": "p1", "ticket": "p3", "notice": "p5"})


@pytest.fixture(scope="module")
def amtool() -> str:
    """Return the path of amtool."""
    return program("amtool")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the example as a file."""
    path = tmp_path_factory.mktemp("example") / "alertmanager.yaml"
    path.write_bytes(example(SETTINGS))
    return path


@pytest.mark.parametrize("settings", [SETTINGS, RENAMED], ids=["default", "renamed"])
def test_alertmanager_accepts_the_example(amtool: str, tmp_path: Path, settings: MixinSettings) -> None:
    """The configuration is whole: routes, receivers, intervals and inhibitions, whatever the tiers are called."""
    path = tmp_path / "alertmanager.yaml"
    path.write_bytes(example(settings))
    done = subprocess.run([amtool, "check-config", str(path)], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert f"{len(inhibit_rules(settings))} inhibit rules" in done.stdout
    matchers = [line.strip("- ") for line in path.read_text().splitlines() if "severity=" in line]
    assert {f'severity="{value}"' for value in settings.severities.values()} == set(matchers)


RECEIVERS = {
    ("model", "page"): "model-pages",
    ("model", "ticket"): "weekly-digest,model-tickets",
    ("model", "notice"): "nobody",
    ("infrastructure", "page"): "infrastructure-pages",
    ("infrastructure", "ticket"): "weekly-digest,infrastructure-tickets",
}


def assert_routed(amtool: str, config: Path, labels: Labels, receivers: str) -> None:
    """Fail unless amtool sends an alert to these receivers."""
    told = [f"{name}={value}" for name, value in labels.items()]
    arguments = ["config", "routes", "test", f"--config.file={config}", f"--verify.receivers={receivers}", *told]
    done = subprocess.run([amtool, *arguments], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, f"{labels}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert.name}-{alert.tier}")
def test_every_alert_reaches_its_owner(amtool: str, config: Path, alert: Alert) -> None:
    """Each tier of each alert goes where its owner expects it; the example's model goes to owners of its own."""
    expected = RECEIVERS[alert.owner, alert.tier]
    assert_routed(amtool, config, labels_of(alert), expected)
    own = expected.replace("model-", "minilm-")
    assert_routed(amtool, config, labels_of(alert, model="minilm"), own)


@pytest.mark.parametrize("severity", ["critical", "warning", "info", "none"])
def test_alerts_of_others_go_where_they_went(amtool: str, config: Path, severity: str) -> None:
    """No alert of kube-prometheus enters our routes, whatever labels it shares with ours."""
    others = {"alertname": "KubePodCrashLooping", "severity": severity, "namespace": "serving", "job": "inference", "model": "minilm"}
    assert_routed(amtool, config, others, "everything-else")


def test_a_job_without_a_model_reaches_the_infrastructure(amtool: str, config: Path) -> None:
    """A target that never carried an agent has no model to be routed by."""
    labels = {name: value for name, value in labels_of(find("AgentMissing")).items() if name in {"alertname", "job", "severity", "owner"}}
    assert_routed(amtool, config, labels, RECEIVERS["infrastructure", "ticket"])


def test_the_tables_name_alerts_that_there_are() -> None:
    """Whatever explains or is explained is one of our alerts, or comes with the labels that it has."""
    named = {name for found in EXPLANATIONS for name in (*found.explained, *(() if found.labels else (found.cause,)))}
    assert set() == named - set(BY_NAME)


def test_inhibitions_compare_only_what_both_sides_have() -> None:
    """No rule is without labels to compare, and none compares one that either side lacks: absent on both would count as equal."""
    for rule in inhibit_rules(SETTINGS):
        assert "namespace" in rule["equal"], rule
        assert {"job", "model"} & set(rule["equal"]), rule
        for side in ("source_matchers", "target_matchers"):
            names = rule[side][0].split('"')[1].split("|")
            compared = set(rule["equal"]) - {"alertname"}
            assert all(compared <= set(BY_NAME[name].labels) for name in names if name in BY_NAME), rule


def test_no_ticket_keeps_a_page_quiet() -> None:
    """Every inhibition whose source may be less than a page, and whose target may be one, names a lower severity for its target."""
    tiers = {name: {alert.tier for alert in ALERTS if alert.name == name} for name in BY_NAME}
    severities = {f'severity="{value}"': tier for tier, value in SETTINGS.severities.items()}

    def possible(matchers: list[str]) -> set[str]:
        of_names = set().union(*(tiers.get(name, set()) for name in matchers[0].split('"')[1].split("|")))
        named = {severities[matcher] for matcher in matchers if matcher in severities}
        return named or of_names

    rules = inhibit_rules(SETTINGS)
    assert [] == [rule for rule in rules if possible(rule["source_matchers"]) - {"page"} and "page" in possible(rule["target_matchers"])]
    assert any({"page"} < possible(rule["target_matchers"]) for rule in rules)


def test_memory_that_has_run_out_explains_errors_and_not_slow_passes() -> None:
    """A budget of latency that burns is told beside it."""
    (rule,) = [
        rule
        for rule in inhibit_rules(SETTINGS)
        if 'alertname="GeluwatchOutOfMemory"' in rule["source_matchers"] and "ErrorBudgetBurn" in rule["target_matchers"][0]
    ]
    assert {'slo="availability"', 'severity="warning"'} <= set(rule["target_matchers"])


def test_a_rollout_keeps_tickets_quiet_and_nothing_else() -> None:
    """What a rollout silences is a ticket in some tier, is not the canary's, and no page is silenced by a notice."""
    quiet = [alert for alert in ALERTS if alert.name in QUIET_IN_ROLLOUT]
    assert {alert.name for alert in quiet} == {alert.name for alert in quiet if alert.tier == "ticket"}
    assert "GeluwatchCanaryDivergence" not in QUIET_IN_ROLLOUT
    rollouts = [rule for rule in inhibit_rules(SETTINGS) if rule["source_matchers"] == ['alertname="GeluwatchRollout"']]
    assert rollouts
    assert all('severity="warning"' in rule["target_matchers"] for rule in rollouts)
