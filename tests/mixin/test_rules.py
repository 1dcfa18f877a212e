"""The alert rules, judged by promtool."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from geluwatch.mixin.build import write
from geluwatch.mixin.rulefile import dump, groups, rule_file, rule_files
from geluwatch.mixin.rules import alerts
from geluwatch.mixin.ruletests import rule_tests
from geluwatch.mixin.settings import MixinSettings

DEFAULT, QUICK = MixinSettings(), MixinSettings.quick()
FORGETFUL = replace(QUICK, agent_memory="1m")
PUBLISHED = replace(
    QUICK,
    runbook_base="https://runbooks.example/geluwatch/",
    dashboard_base="https://grafana.example/",
    severities={"page": "sev1", "ticket": "sev3", "notice": "sev5"},
)


def run(promtool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    return subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True, timeout=600, check=False)


def test_committed_rules_are_valid(promtool: str, root: Path) -> None:
    """Promtool accepts every rule file in alerts/, with every lint it knows."""
    files = sorted((root / "alerts").glob("*.rules.yaml"))
    assert files
    done = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *files)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_committed_rule_tests_pass(promtool: str, root: Path) -> None:
    """Promtool passes every test file in alerts/tests/."""
    files = sorted((root / "alerts/tests").glob("*.yaml"))
    assert files
    done = run(promtool, "test", "rules", *files)
    assert 0 == done.returncode, done.stdout + done.stderr


_OTHERS = [
    pytest.param(settings, marks=pytest.mark.full, id=name) for name, settings in {"forgetful": FORGETFUL, "published": PUBLISHED}.items()
]


@pytest.mark.parametrize("settings", [pytest.param(QUICK, id="quick"), *_OTHERS])
def test_rule_tests_follow_the_settings(promtool: str, tmp_path: Path, settings: MixinSettings) -> None:
    """The tests of other settings pass against the rules of those settings."""
    write(tmp_path, settings)
    done = run(promtool, "test", "rules", *sorted((tmp_path / "alerts/tests").glob("*.yaml")))
    assert 0 == done.returncode, done.stdout + done.stderr


BROKEN = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((Path(__file__).parent / "broken").glob("*.yaml"))}
"""For each alert ways of breaking the rule file, each as the text before and after; `FORGETFUL` is what they are broken in."""


MUTATIONS = [
    pytest.param(alert, change, marks=[pytest.mark.full] if place else [])
    for alert, changes in BROKEN.items()
    for place, change in enumerate(changes)
]
"""The first of each alert's ways belongs to every run, the others to the full one."""


@pytest.mark.parametrize(("alert", "change"), MUTATIONS)
def test_rule_tests_notice_a_broken_rule(promtool: str, tmp_path: Path, alert: str, change: str) -> None:
    """Each way of breaking a rule makes a test of its alert fail: the tests can fail, and cover what they claim to."""
    name, whole = next(
        (name, text.decode()) for name, text in rule_files(FORGETFUL).items() if f"alert: Geluwatch{alert}\n".encode() in text
    )
    before, after = BROKEN[alert][change]
    assert before in whole, "the rule no longer reads so; adapt the change"
    (tmp_path / name).write_text(whole.replace(before, after))
    assert 0 == run(promtool, "check", "rules", tmp_path / name).returncode, "the broken rule must still be a rule"
    (tmp_path / "tests").mkdir()
    for file, document in rule_tests(FORGETFUL).items():
        document["tests"] = [test for test in document["tests"] if test["name"].startswith(f"Geluwatch{alert} ")]
        if document["tests"]:
            (tmp_path / "tests" / file).write_bytes(dump(document))
    short_ones_first = sorted((tmp_path / "tests").iterdir(), key=lambda file: ".long." in file.name)
    assert any(run(promtool, "test", "rules", file).returncode != 0 for file in short_ones_first)


def test_what_reads_every_bucket_is_evaluated_once_a_minute() -> None:
    """The fleet's group alone has an interval of its own; where the settings give one, all groups have that."""
    assert {"geluwatch-fleet": "1m"} == {group["name"]: group["interval"] for group in groups(DEFAULT) if "interval" in group}
    assert {"1s"} == {group["interval"] for group in groups(QUICK)}


def test_every_alert_has_tests_that_fire_and_tests_that_do_not() -> None:
    """Each alert is seen firing and seen silent, by as many stories as its rule has edges."""
    tested: dict[str, list[bool]] = {}
    for test in (test for document in rule_tests(DEFAULT).values() for test in document["tests"]):
        for check in test["alert_rule_test"]:
            tested.setdefault(check["alertname"], []).append(bool(check["exp_alerts"]))
    assert {alert.name for alert in alerts(DEFAULT)} == set(tested)
    assert all({True, False} == set(seen) for seen in tested.values())


def test_rules_follow_the_conventions_of_alerting(rules: list[dict[str, Any]]) -> None:
    """Every alert has a known severity and four annotations, a summary without variables, and no value in its labels."""
    for rule in (rule for rule in rules if "alert" in rule):
        assert rule["alert"].startswith("Geluwatch"), rule["alert"]
        assert rule["labels"].keys() == {"severity", "owner"}, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, rule["alert"]
        assert rule["labels"]["owner"] in {"model", "infrastructure"}, rule["alert"]
        assert ["summary", "description", "runbook_url", "dashboard_url"] == list(rule["annotations"]), rule["alert"]
        assert "{{" not in rule["annotations"]["summary"], rule["alert"]


PAGES = {"NonFiniteActivations", "OutOfMemory", "GrossFault", "OverflowAhead", "ActivationDrift", "ErrorBudgetBurn"}
"""What wakes people: values that are not numbers, memory that ran out, gross faults, a near overflow, drift far beyond chance,
and a promise to users that is broken fast."""


def test_only_what_cannot_wait_wakes_people(rules: list[dict[str, Any]]) -> None:
    """The alerts that page are those written down above, and no others."""
    critical = [rule["alert"] for rule in rules if rule.get("labels", {}).get("severity") == "critical"]
    assert {f"Geluwatch{name}" for name in PAGES} == set(critical)


def test_drift_pages_sooner_than_it_tickets(rules: list[dict[str, Any]]) -> None:
    """Both tiers of drift bear one name, so that one runbook and one silence serve both; the page waits less."""
    drift = [(rule["labels"]["severity"], rule["for"]) for rule in rules if rule.get("alert") == "GeluwatchActivationDrift"]
    assert [("critical", "2m"), ("warning", "15m")] == drift


def test_a_selector_reaches_every_query(promtool: str, tmp_path: Path) -> None:
    """With a selector no rule reads an exported series of other targets, and the rules are still valid."""
    rules = tmp_path / "rules.yaml"
    rules.write_bytes(rule_file(MixinSettings(selector='cluster="eu"')))
    assert 0 == run(promtool, "check", "rules", rules).returncode
    for rule in (rule for group in yaml.safe_load(rules.read_text())["groups"] for rule in group["rules"]):
        read = re.findall(r"(?<![:\w])(?:geluwatch_\w+|up)(?![:\w])(.{13})", rule["expr"])
        assert {'{cluster="eu"'} >= set(read), rule["expr"]


def test_expected_targets_are_missed_without_ever_having_had_an_agent(promtool: str, tmp_path: Path) -> None:
    """A target that must carry an agent and never did opens a ticket for its job; one that has an agent does not."""
    (tmp_path / "rules.yaml").write_bytes(rule_file(replace(QUICK, expected_targets='job="inference"')))
    text = "A target of job inference carries no agent: there is a target without geluwatch metrics, and NaN, Inf or drift there go unseen."
    expected = {
        "exp_labels": {"severity": "warning", "owner": "infrastructure", "job": "inference"},
        "exp_annotations": {
            "summary": "A model that is expected to be watched is not.",
            "description": text,
            "runbook_url": "http://a:1/runbooks/GeluwatchAgentMissing",
            "dashboard_url": "/d/geluwatch-oncall?var-job=inference",
        },
    }
    series = {
        'up{job="inference",instance="a:1"}': "1+0x30",
        'geluwatch_build_info{job="inference",instance="a:1",model="m",model_version="1"}': "1+0x30",
        'up{job="inference",instance="b:1"}': "1+0x30",
        'up{job="node",instance="b:1"}': "1+0x30",
    }
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1s",
        "tests": [
            {
                "interval": "1s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [
                    {"eval_time": "9s", "alertname": "GeluwatchAgentMissing", "exp_alerts": []},
                    {"eval_time": "10s", "alertname": "GeluwatchAgentMissing", "exp_alerts": [expected]},
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    done = run(promtool, "test", "rules", tmp_path / "test.yaml")
    assert 0 == done.returncode, done.stdout + done.stderr
