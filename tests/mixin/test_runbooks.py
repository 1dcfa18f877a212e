"""Runbooks: one for each alert, whole, in agreement with the rules, and light to import."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path, PurePath
from typing import Any

import pytest

from geluwatch.errors import ConfigError
from geluwatch.mixin.playbooks import SUMMARIES
from geluwatch.mixin.rules import alerts
from geluwatch.mixin.runbooks import names, runbook, summaries
from geluwatch.mixin.settings import MixinSettings

WOKEN_BY = tuple(dict.fromkeys(alert.name for alert in alerts(MixinSettings()) if alert.tier == "page"))
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation", "Verify recovery", "False positives"]


def test_alerts_and_runbooks_are_one_to_one(rules: list[dict[str, Any]], rendered: dict[str, bytes]) -> None:
    """Every alert has a runbook, every runbook has an alert, and the files are named after them."""
    named = list(dict.fromkeys(rule["alert"] for rule in rules if "alert" in rule))
    assert sorted(named) == sorted(names())
    assert sorted(f"{name}.md" for name in named) == [path.name for path in map(PurePath, rendered) if path.parent.name == "runbooks"]
    assert sorted(named) == sorted(summaries())


@pytest.mark.parametrize("name", names())
def test_a_runbook_has_its_sections_in_order(name: str) -> None:
    """A runbook begins with the alert's name and leads from meaning to recovery, with words in every section."""
    text = runbook(name)
    assert text.startswith(f"# {name}\n")
    assert SECTIONS == re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert all(len(part.split()) > 15 for part in re.split(r"^## .*$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", names())
def test_a_runbook_states_the_facts_of_its_rule(name: str, rules: list[dict[str, Any]]) -> None:
    """Severity, wait and expression are those of the rule file, in each of the alert's tiers."""
    text = runbook(name)
    for rule in (rule for rule in rules if rule.get("alert") == name):
        assert re.search(rf"^\| Severity \|.* `{rule['labels']['severity']}`", text, re.MULTILINE)
        assert f"```promql\n{rule['expr']}\n```" in text
        assert ("| Fires | at once |" in text) == (rule["for"] == "0m")
        assert (f"held for {rule['for']} |" in text) == (rule["for"] != "0m")


def test_facts_follow_the_settings() -> None:
    """A runbook rendered with other settings states those."""
    text = runbook("GeluwatchActivationDrift", MixinSettings(drift_for="42m", severities={"page": "p1", "ticket": "p4", "notice": "p5"}))
    assert "held for 42m |" in text
    assert re.search(r"^\| Severity \| `p1`: wakes someone up \| `p4`:", text, re.MULTILINE)
    assert "| Fact | As a page | As a ticket |" in text


@pytest.mark.parametrize("name", names())
def test_a_runbook_can_be_followed(name: str) -> None:
    """A runbook holds queries, commands and code to paste, and says how to take back what it advises."""
    text = runbook(name)
    assert text.count("```promql") >= 3
    assert "@{" not in text
    mitigation = text.split("## Mitigation")[1].split("## Verify")[0]
    assert re.search(r"way back|kubectl rollout undo|go back", mitigation, re.IGNORECASE)
    assert "watch." in text


@pytest.mark.parametrize("name", names())
def test_a_runbook_says_first_what_happened(name: str) -> None:
    """The first line after the title is the alert's own sentence, before any fact or query."""
    assert summaries()[name] == runbook(name).splitlines()[2]


@pytest.mark.parametrize("name", names())
def test_a_runbook_begins_with_what_to_do_first(name: str) -> None:
    """Whoever is called reads a handful of steps before the explanation, and the rule itself at the very end."""
    text = runbook(name)
    first, rest = text.split("## Meaning")
    steps = re.findall(r"^\d\. ", first.split("**First two minutes**")[1], re.MULTILINE)
    assert 2 <= len(steps) < 5
    explained, rule = rest.split("### The rule")
    assert "## False positives" in explained
    assert "## " not in rule


@pytest.mark.parametrize("name", WOKEN_BY)
def test_mitigation_leads_to_a_playbook(name: str) -> None:
    """Where the runbook says what to change, the playbook that says how is a link away."""
    mitigation = runbook(name).split("## Mitigation")[1].split("## Verify")[0]
    assert set(re.findall(r"\]\(playbooks/(\w+)\.md\)", mitigation)) & set(SUMMARIES)


def test_the_inhibition_is_alertmanagers(tmp_path: Path) -> None:
    """The rule that keeps the ticket back while drift pages is one that Alertmanager accepts, with the settings' severities."""
    text = runbook("GeluwatchActivationDrift", MixinSettings(severities={"page": "p1", "ticket": "p4", "notice": "p5"}))
    (fence,) = re.findall(r"^( *)```yaml\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    snippet = textwrap.dedent(fence[1])
    assert ('severity="p1"' in snippet, 'severity="p4"' in snippet) == (True, True)
    config = tmp_path / "alertmanager.yml"
    config.write_text(f"route: {{receiver: none}}\nreceivers: [{{name: none}}]\n{snippet}")
    amtool = shutil.which("amtool")
    if amtool is None:
        pytest.skip("amtool is not installed")
    done = subprocess.run([amtool, "check-config", str(config)], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "1 inhibit rules" in done.stdout


@pytest.mark.parametrize("name", names())
def test_python_snippets_are_python(name: str) -> None:
    """Every Python fence parses as it stands."""
    for fence in re.findall(r"^( *)```python\n(.*?)^ *```", runbook(name), re.MULTILINE | re.DOTALL):
        assert ast.parse(textwrap.dedent(fence[1])).body


@pytest.mark.parametrize("asked", ["GeluwatchAgentMissing", "geluwatchagentmissing", "AgentMissing", "agentmissing", " AGENTMISSING.md "])
def test_a_runbook_is_found_however_it_is_asked_for(asked: str) -> None:
    """Case, prefix and file ending do not matter."""
    assert runbook("GeluwatchAgentMissing") == runbook(asked)


@pytest.mark.parametrize("asked", ["", "NoSuchAlert", "../secrets", "Geluwatch"])
def test_an_unknown_runbook_is_refused_with_the_list(asked: str) -> None:
    """The message repeats what was asked and names every runbook there is."""
    with pytest.raises(ConfigError) as caught:
        runbook(asked)
    assert repr(asked) in str(caught.value)
    assert all(name in str(caught.value) for name in names())


def test_runbooks_are_light_to_import() -> None:
    """An agent that serves runbooks loads neither YAML nor grafanalib nor a framework for them."""
    code = (
        "import sys; from geluwatch.mixin import handbook;"
        "[handbook.page(name) for group in handbook.contents().values() for name in group];"
        "print(sorted({'yaml', 'grafanalib', 'attr', 'torch', 'sqlalchemy', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout
