"""The commands `geluwatch mixin` and `geluwatch runbook`."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from geluwatch.cli import mixin, runbook
from geluwatch.errors import ConfigError
from geluwatch.mixin.build import check
from geluwatch.mixin.playbooks import SUMMARIES, playbook
from geluwatch.mixin.runbooks import names
from geluwatch.mixin.runbooks import runbook as page
from geluwatch.mixin.settings import MixinSettings


def run(*words: str) -> int:
    """Run a command and return its exit status."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    mixin.add_parser(commands)
    runbook.add_parser(commands)
    args = parser.parse_args(words)
    return int(args.func(args))


def test_render_writes_and_names_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is rendered is what the check expects, and each path is printed."""
    assert 0 == run("mixin", "render", "--out", str(tmp_path))
    assert [] == check(tmp_path, MixinSettings())
    printed = capsys.readouterr().out.splitlines()
    assert sorted(str(path) for path in tmp_path.rglob("*") if path.is_file()) == sorted(printed)


def test_check_passes_on_what_was_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fresh render is up to date, by the same options and no others."""
    assert 0 == run("mixin", "render", "--out", str(tmp_path), "--quick", "--runbook-base", "https://runbooks.example")
    assert 0 == run("mixin", "check", "--dir", str(tmp_path), "--quick", "--runbook-base", "https://runbooks.example")
    assert "Everything is up to date." in capsys.readouterr().out
    assert 1 == run("mixin", "check", "--dir", str(tmp_path))


def test_check_names_what_differs_and_the_command_that_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A check that fails exits with 1, lists the files, and gives a command that makes the next one pass."""
    directory = tmp_path / "with blank"
    options = ["--selector", 'job="a b"', "--dashboard-base", "https://grafana.example"]
    assert 0 == run("mixin", "render", "--out", str(directory), *options)
    (directory / "runbooks/GeluwatchAgentMissing.md").write_text("edited")
    capsys.readouterr()
    assert 1 == run("mixin", "check", "--dir", str(directory), *options)
    told = capsys.readouterr()
    assert f"{directory / 'runbooks/GeluwatchAgentMissing.md'}\n" == told.out
    command = told.err.split("mend them with: ")[1]
    assert 0 == run(*shlex.split(command)[1:])
    assert 0 == run("mixin", "check", "--dir", str(directory), *options)


def test_thresholds_reach_the_rules(tmp_path: Path) -> None:
    """A threshold on the command line is that of the rendered rules, and a check with it agrees."""
    options = ["--threshold", "latency_seconds=1.0", "--threshold=cost_factor=1.5"]
    assert 0 == run("mixin", "render", "--out", str(tmp_path), *options)
    assert 'le=~"1([.]0)?"' in (tmp_path / "alerts/geluwatch-objectives.rules.yaml").read_text()
    assert 0 == run("mixin", "check", "--dir", str(tmp_path), *options)
    assert 1 == run("mixin", "check", "--dir", str(tmp_path))


def test_waits_and_severities_reach_the_rules(tmp_path: Path) -> None:
    """A wait and a severity on the command line are those of the rendered rules, and a check with them agrees."""
    options = ["--wait", "drift_for=45m", "--severity=page=sev1"]
    assert 0 == run("mixin", "render", "--out", str(tmp_path), *options)
    drift = (tmp_path / "alerts/geluwatch-drift.rules.yaml").read_text()
    assert "for: 45m" in drift
    assert "severity: sev1" in drift
    assert "severity: critical" not in drift
    assert 0 == run("mixin", "check", "--dir", str(tmp_path), *options)


@pytest.mark.parametrize(
    ("option", "given", "words"),
    [
        ("--wait", "rollout=2h", "There is no wait 'rollout'; there are rate_window, grace, "),
        ("--wait", "rollout_window=soon", "rollout_window must be"),
        ("--wait", "rollout_window", "--wait takes a key and a value with = between them, got 'rollout_window'."),
        ("--severity", "alarm=sev1", "There is no severity 'alarm'; there are page, ticket, notice."),
        ("--severity", "page=", "severities must give a label value for each of page, ticket, notice"),
    ],
)
def test_unusable_waits_and_severities_are_refused(option: str, given: str, words: str, tmp_path: Path) -> None:
    """Each is an error of ours in one sentence, before anything is written."""
    with pytest.raises(ConfigError, match=re.escape(words)):
        run("mixin", "render", "--out", str(tmp_path), option, given)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("latency=1", "There is no threshold 'latency'; there are latency_seconds, latency_objective, "),
        ("latency_seconds=soon", "latency_seconds must be a number, got 'soon'."),
        ("latency_seconds=0.3", "latency_seconds must be an edge of the latency histogram (0.0005, 0.001, "),
        ("memory_share=90", "memory_share must be a share below 1, got 90.0; 0.01 is one percent."),
        ("latency_objective=0.93", "latency_objective must be above 0.931, got 0.93: of a lower objective even passes that all fail"),
        ("cost_factor=1", "cost_factor must be above 1, got 1.0; 2 is twice the usual."),
        ("cost_factor=nan", "cost_factor must be a positive finite number, got nan."),
        ("cost_factor", "--threshold takes a key and a value with = between them, got 'cost_factor'."),
    ],
)
def test_unusable_thresholds_are_refused(given: str, words: str, tmp_path: Path) -> None:
    """Each is an error of ours in one sentence, before anything is written."""
    with pytest.raises(ConfigError, match=re.escape(words)):
        run("mixin", "render", "--out", str(tmp_path), "--threshold", given)
    assert [] == list(tmp_path.iterdir())


def test_unusable_options_are_refused(tmp_path: Path) -> None:
    """An option that makes no sense is an error of ours, before anything is written."""
    with pytest.raises(ConfigError, match="runbook_base must be an http or https URL"):
        run("mixin", "render", "--out", str(tmp_path), "--runbook-base", "nowhere")
    assert [] == list(tmp_path.iterdir())


KUBERNETES = [
    "--format=kubernetes",
    "--namespace=observability",
    "--label=release=kube-prometheus-stack",
    "--label=team=",
    "--pod-label=geluwatch=on",
    "--pod-namespace=models",
    "--pod-namespace=models-canary",
    "--port=geluwatch=9464",
    "--port=geluwatch-1=9465",
    "--prometheus-namespace=prometheus",
    "--cluster=eu 1",
    "--dashboard-folder=Models at work",
    "--sample-limit=1000",
    "--runbook-base=https://runbooks.example",
    "--quick",
]


def test_kubernetes_resources_are_rendered_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The format writes below kubernetes/ alone, and a check takes the same options and no others."""
    assert 0 == run("mixin", "render", "--out", str(tmp_path), *KUBERNETES)
    assert ["kubernetes"] == [path.name for path in tmp_path.iterdir()]
    assert sorted(str(path) for path in tmp_path.rglob("*.yaml")) == capsys.readouterr().out.splitlines()
    assert 0 == run("mixin", "check", "--dir", str(tmp_path), *KUBERNETES)
    assert 1 == run("mixin", "check", "--dir", str(tmp_path), *KUBERNETES[:-2])


def test_the_command_that_mends_kubernetes_resources_mends_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that a failed check gives carries every option."""
    assert 1 == run("mixin", "check", "--dir", str(tmp_path), *KUBERNETES)
    command = capsys.readouterr().err.split("mend them with: ")[1]
    assert 0 == run(*shlex.split(command)[1:])
    assert 0 == run("mixin", "check", "--dir", str(tmp_path), *KUBERNETES)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--namespace=models"], "--namespace is for Kubernetes only; add --format kubernetes."),
        (["--format=prometheus", "--label=a=b"], "--label is for Kubernetes only; add --format kubernetes."),
        (["--format=kubernetes", "--label=release"], "--label takes a key and a value with = between them, got 'release'."),
        (["--format=kubernetes", "--pod-label=geluwatch"], "--pod-label takes a key and a value with = between them, got 'geluwatch'."),
        (["--format=kubernetes", "--port=9464"], "--port takes a key and a value with = between them, got '9464'."),
        (["--format=kubernetes", "--port=geluwatch=http"], "--port takes a name and a number, such as geluwatch=9464; got geluwatch=http."),
        (["--format=kubernetes", "--label=release=a b"], "release got 'a b'."),
    ],
)
def test_unusable_kubernetes_options_are_refused(options: list[str], words: str, tmp_path: Path) -> None:
    """Each is an error of ours in one sentence, before anything is written."""
    with pytest.raises(ConfigError, match=f"{re.escape(words)}$"):
        run("mixin", "render", "--out", str(tmp_path), *options)
    assert [] == list(tmp_path.iterdir())


def test_help_explains_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    """The help names both formats with what they are for, and every option says its default or that it repeats."""
    with pytest.raises(SystemExit) as ended:
        run("mixin", "render", "--help")
    assert 0 == ended.value.code
    told = " ".join(capsys.readouterr().out.split())
    for words in (
        "prometheus: dashboards/, alerts/, runbooks/ and docs/metrics.md",
        "kubernetes: kubernetes/ with a PrometheusRule",
        "with --format kubernetes:",
    ):
        assert words in told
    options = re.findall(r" (--[a-z-]+) [A-Z{]\S* (.*?)(?= --|$)", told.partition("with --format kubernetes:")[2])
    assert 9 == len(options)
    assert [] == [name for name, text in options if "default" not in text and "repeatable" not in text]


def test_runbooks_and_playbooks_are_listed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name every runbook and every playbook is listed, each in its block, with what it is about."""
    assert 0 == run("runbook")
    *blocks, hint = capsys.readouterr().out.split("\n\n")
    listed = {block.splitlines()[0]: [line.split()[0] for line in block.splitlines()[1:]] for block in blocks}
    assert {"Runbooks:": list(names()), "Playbooks:": list(SUMMARIES)} == listed
    assert all(line.endswith(".") for block in blocks for line in block.splitlines()[1:])
    assert "To read one: geluwatch runbook NAME\n" == hint


@pytest.mark.parametrize(("asked", "expected"), [("activationdrift", page("GeluwatchActivationDrift")), ("rollback", playbook("Rollback"))])
def test_a_page_is_printed_as_it_is(asked: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name in any form prints the Markdown where the output is no terminal."""
    assert 0 == run("runbook", asked)
    assert expected == capsys.readouterr().out


def test_an_unknown_runbook_is_refused() -> None:
    """A name that is none is an error that lists what there is."""
    with pytest.raises(ConfigError, match="GeluwatchAgentMissing"):
        run("runbook", "nothing")
