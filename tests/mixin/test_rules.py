"""The alert rules, judged by promtool."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from geluwatch.mixin.alerts import alerts
from geluwatch.mixin.build import write
from geluwatch.mixin.rulefile import dump, rule_file
from geluwatch.mixin.ruletests import RULE_FILE, rule_tests
from geluwatch.mixin.settings import MixinSettings

DEFAULT, QUICK = MixinSettings(), MixinSettings.quick()
FORGETFUL = replace(QUICK, agent_memory="1m")
PUBLISHED = replace(
    QUICK,
    runbook_base="https://runbooks.example/geluwatch/",
    dashboard_base="https://grafana.example/",
    severities={"page": "sev1", "ticket": "sev3"},
)


def run(promtool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    return subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def test_committed_rules_are_valid(promtool: str, root: Path) -> None:
    """Promtool accepts every rule file in alerts/, with every lint it knows."""
    files = sorted((root / "alerts").glob("*.yaml"))
    assert files
    done = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *files)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_committed_rule_tests_pass(promtool: str, root: Path) -> None:
    """Promtool passes every test file in alerts/tests/."""
    files = sorted((root / "alerts/tests").glob("*.yaml"))
    assert files
    done = run(promtool, "test", "rules", *files)
    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("settings", [QUICK, FORGETFUL, PUBLISHED], ids=["quick", "forgetful", "published"])
def test_rule_tests_follow_the_settings(promtool: str, tmp_path: Path, settings: MixinSettings) -> None:
    """The tests of other settings pass against the rules of those settings."""
    write(tmp_path, settings)
    done = run(promtool, "test", "rules", tmp_path / "alerts/tests/geluwatch.rules.test.yaml")
    assert 0 == done.returncode, done.stdout + done.stderr


MODELS = "(cluster, namespace, job, model, model_version)"
POINTS = "by (cluster, namespace, job, model, model_version, layer, point)"
EVIDENCE, SURPRISE = f"{POINTS} (clamp_max(geluwatch_drift_evidence", f"{POINTS} (clamp_max(geluwatch_drift_surprise"
RESTART = "changes(geluwatch_attached_timestamp_seconds[10s]) > "
TRAFFIC = "increase(geluwatch_forward_passes_total[20s]) "

BROKEN = {
    "NonFiniteActivations": {
        "the page waits": ("for: 0m", "for: 5s"),
        "nothing keeps firing": ("keep_firing_for: 10s", "keep_firing_for: 1s"),
        "counters born above zero are ignored": (
            "(geluwatch_nonfinite_forward_passes_total offset 10s)",
            "geluwatch_nonfinite_forward_passes_total",
        ),
        "old counts are news": ("> 3600)", "> 1e9)"),
        "restarts are ignored": (f"{RESTART}0", f"{RESTART}9"),
        "pods are not summed": ("sum by (cluster, namespace, job, model,", "sum by (cluster, namespace, job, instance, model,"),
        "ties go to the later layer": ("- on (layer)", "+ on (layer)"),
        "a dead pod's layers have no order": ("last_over_time(geluwatch_layer_index{%[1]s}[10s])", "geluwatch_layer_index{%[1]s}"),
        "the severity is another": ("severity: critical", "severity: warning"),
    },
    "OutOfMemory": {
        "every failure pages": ("geluwatch_out_of_memory_forward_passes_total", "geluwatch_failed_forward_passes_total"),
        "pods are one incident each": (
            f"sum by {MODELS} (instance",
            "sum by (cluster, namespace, job, model, model_version, instance) (instance",
        ),
        "nothing keeps firing": ("keep_firing_for: 10s", "keep_firing_for: 1s"),
        "pods are not counted": ("count(instance_model", "0 * count(instance_model"),
    },
    "GrossFault": {
        "faults of the baseline page": ('(geluwatch_verdict{verdict="page"} == 1)', '(geluwatch_verdict{verdict="page"} >= 0)'),
        "what lies behind a NaN pages": ("(model:geluwatch_nonfinite_forward_passes:increase10s > 0)", "(up > 9)"),
        "sound layers page": ("(geluwatch_gross_fault == 1)", "(geluwatch_gross_fault >= 0)"),
        "layers are listed from the last": ("sort(0 *", "sort_desc(0 *"),
        "the page does not wait": ("for: 3s", "for: 0s"),
    },
    "ActivationDrift": {
        "the ticket's limit is raised": (":avg) >= 1", ":avg) >= 9"),
        "the ticket's limit is lowered": (":avg) >= 1", ":avg) >= 0.6"),
        "the page's limit is the ticket's": ('geluwatch_drift_limit{tier="page"}', "geluwatch_drift_limit"),
        "the page is not for want of a limit": ('geluwatch_drift_limit{tier="page"}', "geluwatch_build_info"),
        "the page's limit is passed from below": (f">= on {MODELS} group", f"< on {MODELS} group"),
        "the average of pods becomes their maximum": (f"avg {EVIDENCE}", f"max {EVIDENCE}"),
        "the average of surprises becomes their maximum": (f"avg {SURPRISE}", f"max {SURPRISE}"),
        "one pod carries the mean of evidence": (" > -Inf, 2)", " > -Inf, 1e9)"),
        "one pod carries the mean of surprises": (" > -Inf, 15)", " > -Inf, 1e9)"),
        "a missing reading is averaged": (" > -Inf", ""),
        "the ticket does not wait": ("for: 5s", "for: 0s"),
        "the page does not wait": ("for: 3s", "for: 0s"),
        "layers are listed from the last": ("sort(min", "sort_desc(min"),
        "the first layer is the one that fewest pods name": ("sort_desc(count by (layer, scope)", "sort(count by (layer, scope)"),
        "the scopes are mixed up": ("eq .Labels.scope `traffic`", "eq .Labels.scope `model`"),
        "huge numbers are written out": ("%.3g", "%.2f"),
    },
    "TrainingFault": {
        "a scaler is not asked for": ("(geluwatch_loss_scale)", "(geluwatch_no_such_scale)"),
        "few skips are a ticket": ("geluwatch_skipped_steps_in_a_row >= 16", "geluwatch_skipped_steps_in_a_row >= 8"),
        "many skips are none": ("geluwatch_skipped_steps_in_a_row >= 16", "geluwatch_skipped_steps_in_a_row >= 17"),
        "losses are not looked at": (
            "(model:geluwatch_nonfinite_losses:increase10s > 0)",
            "(model:geluwatch_nonfinite_losses:increase10s > 1e9)",
        ),
        "the rarest layer is named": (
            "sort_desc(model_layer:geluwatch_site_first_nonfinite_gradient",
            "sort(model_layer:geluwatch_site_first_nonfinite_gradient",
        ),
    },
    "PodDrift": {
        "no margin is asked for": ("(1 + log10", "(0 + log10"),
        "the number of pods costs nothing": ("log10(count", "0 * log10(count"),
        "two pods are a fleet": (">= 3)", ">= 2)"),
        "one pod is a fleet": (">= 3)", ">= 1)"),
        "a model that drifts has stray pods": (":avg) >= 1)", ":avg) >= 9)"),
        "pods are one incident": ("max by (cluster, namespace, job, model, model_version, instance) (\n", f"max by {MODELS} (\n"),
        "the least surprising layer is named": ("sort_desc(max by (layer) (geluwatch_drift", "sort(max by (layer) (geluwatch_drift"),
        "the ticket does not wait": ("for: 5s", "for: 0s"),
    },
    "OverflowAhead": {
        "a roomy layer is told": ("geluwatch_overflow_alarm == 1", "geluwatch_overflow_alarm >= 0"),
        "a ticket pages": ('geluwatch_overflow_alarm{tier="page"}', "geluwatch_overflow_alarm"),
        "what has overflown is told again": ("(model:geluwatch_nonfinite_forward_passes:increase10s > 0)", "(up > 9)"),
        "the time left is not said": ("min(geluwatch_predicted_overflow_seconds", "min(geluwatch_window_end_timestamp_seconds"),
        "the roomiest side is read": ("min(geluwatch_headroom_doublings", "max(geluwatch_headroom_doublings"),
        "layers are listed from the last": (
            "sort(min by (layer) (geluwatch_layer_index{%[1]s}) and",
            "sort_desc(min by (layer) (geluwatch_layer_index{%[1]s}) and",
        ),
        "it does not wait": ("for: 3s", "for: 0s"),
    },
    "KernelMismatch": {
        "right kernels are told": ("geluwatch_kernel_mismatch == 1", "geluwatch_kernel_mismatch >= 0"),
        "layers are listed from the last": ("sort(0 * max by (layer, declared", "sort_desc(0 * max by (layer, declared"),
        "the size is not said": ("max(geluwatch_kernel_error_ulps", "max(geluwatch_window_rows"),
        "it does not wait": ("for: 5s", "for: 0s"),
        "it ends at once": ("keep_firing_for: 10s", "keep_firing_for: 1s"),
    },
    "AgentMissing": {
        "agents have no memory": ("max_over_time(geluwatch_build_info[1m:1s])", "(geluwatch_build_info)"),
        "agents have too long a memory": ("[1m:1s]", "[2m:1s]"),
        "targets need not be there": ("(up unless", "(instance_model:geluwatch_build_info:max1m unless"),
        "the runbook is another": ("/runbooks/GeluwatchAgentMissing", "/runbooks/GeluwatchMissing"),
    },
    "BaselineMissing": {
        "an idle model needs a baseline": (f"{TRAFFIC}> 0", f"{TRAFFIC}>= 0"),
        "a baseline is not looked for": ("geluwatch_baseline_armed == 0", "geluwatch_baseline_armed >= 0"),
    },
}


@pytest.mark.parametrize(("alert", "change"), [(alert, change) for alert, changes in BROKEN.items() for change in changes])
def test_rule_tests_notice_a_broken_rule(promtool: str, tmp_path: Path, alert: str, change: str) -> None:
    """Each way of breaking a rule makes a test of its alert fail: the tests can fail, and cover what they claim to."""
    rules, tests = tmp_path / RULE_FILE, tmp_path / "tests/test.yaml"
    whole = rule_file(FORGETFUL).decode()
    before, after = BROKEN[alert][change]
    assert before in whole, "the rule no longer reads so; adapt the change"
    rules.write_text(whole.replace(before, after))
    assert 0 == run(promtool, "check", "rules", rules).returncode, "the broken rule must still be a rule"
    tests.parent.mkdir()
    document = rule_tests(FORGETFUL)
    document["tests"] = [test for test in document["tests"] if test["name"].startswith(f"Geluwatch{alert} ")]
    tests.write_bytes(dump(document))
    assert 0 != run(promtool, "test", "rules", tests).returncode


def test_every_alert_has_tests_that_fire_and_tests_that_do_not() -> None:
    """Each alert is seen firing and seen silent, by as many stories as its rule has edges."""
    tested: dict[str, list[bool]] = {}
    for test in rule_tests(DEFAULT)["tests"]:
        for check in test["alert_rule_test"]:
            tested.setdefault(check["alertname"], []).append(bool(check["exp_alerts"]))
    assert {alert.name for alert in alerts(DEFAULT)} == set(tested)
    assert all({True, False} == set(seen) for seen in tested.values())


def test_rules_follow_the_conventions_of_alerting(rules: list[dict[str, Any]]) -> None:
    """Every alert has a known severity and four annotations, a summary without variables, and no value in its labels."""
    for rule in (rule for rule in rules if "alert" in rule):
        assert rule["alert"].startswith("Geluwatch"), rule["alert"]
        assert rule["labels"].keys() == {"severity"}, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        assert ["summary", "description", "runbook_url", "dashboard_url"] == list(rule["annotations"]), rule["alert"]
        assert "{{" not in rule["annotations"]["summary"], rule["alert"]


def test_only_pages_are_critical(rules: list[dict[str, Any]]) -> None:
    """Five things wake people: values that are not numbers, memory that ran out, gross faults, a near overflow, drift far beyond chance."""
    expected = [
        "GeluwatchNonFiniteActivations",
        "GeluwatchOutOfMemory",
        "GeluwatchGrossFault",
        "GeluwatchOverflowAhead",
        "GeluwatchActivationDrift",
    ]
    assert expected == [rule["alert"] for rule in rules if rule.get("labels") == {"severity": "critical"}]


def test_drift_pages_sooner_than_it_tickets(rules: list[dict[str, Any]]) -> None:
    """Both tiers of drift bear one name, so that one runbook and one silence serve both; the page waits less."""
    drift = [(rule["labels"]["severity"], rule["for"]) for rule in rules if rule.get("alert") == "GeluwatchActivationDrift"]
    assert [("critical", "2m"), ("warning", "15m")] == drift


def test_a_selector_reaches_every_query(promtool: str, tmp_path: Path) -> None:
    """With a selector no rule reads an exported series of other targets, and the rules are still valid."""
    rules = tmp_path / "rules.yaml"
    rules.write_bytes(rule_file(MixinSettings(selector='cluster="eu"')))
    assert 0 == run(promtool, "check", "rules", rules).returncode
    for rule in yaml.safe_load(rules.read_text())["groups"][0]["rules"]:
        read = re.findall(r"(?<![:\w])(?:geluwatch_\w+|up)(?![:\w])(.{13})", rule["expr"])
        assert {'{cluster="eu"'} >= set(read), rule["expr"]


def test_expected_targets_are_missed_without_ever_having_had_an_agent(promtool: str, tmp_path: Path) -> None:
    """A target that must carry an agent and never did opens a ticket for its job; one that has an agent does not."""
    (tmp_path / "rules.yaml").write_bytes(rule_file(replace(QUICK, expected_targets='job="inference"')))
    text = "A target of job inference carries no agent: there is a target without geluwatch metrics, and NaN, Inf or drift there go unseen."
    expected = {
        "exp_labels": {"severity": "warning", "job": "inference"},
        "exp_annotations": {
            "summary": "A model that is expected to be watched is not.",
            "description": text,
            "runbook_url": "http://a:1/runbooks/GeluwatchAgentMissing",
            "dashboard_url": "/d/geluwatch-overview?var-job=inference",
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
