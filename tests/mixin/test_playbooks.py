"""Playbooks: whole, linked, true to their settings, and what they say to run is run."""

from __future__ import annotations

import ast
import gzip
import re
import shlex
import subprocess
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import promql_parser
import pytest
import torch
import yaml
from torch import nn

import geluwatch
from geluwatch.cli.demo.servers import Alertmanager
from geluwatch.errors import ConfigError
from geluwatch.export import markdown
from geluwatch.mixin import handbook
from geluwatch.mixin.playbooks import SUMMARIES, playbook
from geluwatch.mixin.rules import alerts
from geluwatch.mixin.settings import MixinSettings
from geluwatch.watch import Watch

FILES = handbook.files(MixinSettings())
KNOWN = {alert.name for alert in alerts(MixinSettings())}
TICKET = {"alertname": "GeluwatchActivationDrift", "model": "MODEL", "severity": "warning"}


def fences(text: str, language: str) -> list[str]:
    """Return the fences of a language, indentation taken off."""
    return [textwrap.dedent(found[1]) for found in re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)]


def links(text: str) -> list[str]:
    """Return what the links of a text lead to."""
    return re.findall(r"\]\(([^)]+)\)", text)


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_playbook_says_what_it_is_for(name: str) -> None:
    """It begins with its name and its sentence, holds no fact unfilled, and has queries to paste."""
    lines = playbook(name).splitlines()
    assert (f"# {name}", SUMMARIES[name]) == (lines[0], lines[2])
    assert "@{" not in playbook(name)
    assert len(fences(playbook(name), "promql")) >= 3


@pytest.mark.parametrize("path", FILES)
def test_what_is_pasted_fits_into_a_terminal(path: str) -> None:
    """No line of shell or Python is so long that a terminal of a hundred columns breaks it, which a shell would take for its end."""
    assert [] == [
        line for language in ("shell", "python") for fence in fences(FILES[path], language) for line in fence.splitlines() if len(line) > 92
    ]


@pytest.mark.parametrize("path", FILES)
def test_links_lead_somewhere_wherever_they_are_read(path: str) -> None:
    """On disk and below a published address every link is a file that is rendered; on the listener it is a page's name."""
    names = {Path(other).stem for other in FILES}
    base = "https://runbooks.example/"
    for link in links(FILES[path]):
        assert urljoin(base + path, link).removeprefix(base) in FILES
    served = markdown.render(FILES[path], names).html
    assert {link.removesuffix(".md").rpartition("/")[2] for link in links(FILES[path])} == set(re.findall(r'href="([^"]+)"', served))


def test_every_playbook_is_reached_from_a_runbook_or_another() -> None:
    """Nobody has to know that a playbook exists in order to find it."""
    reached = {Path(link).stem for path, text in FILES.items() for link in links(text) if Path(link).stem != Path(path).stem}
    assert set(SUMMARIES) <= reached


@pytest.mark.skipif(not KNOWN >= {"GeluwatchCanaryDivergence", "GeluwatchRollout"}, reason="needs the alerts of canaries and rollouts")
def test_every_alert_that_a_playbook_names_exists() -> None:
    """A name that begins with Geluwatch is one of the alerts."""
    named = {found for name in SUMMARIES for found in re.findall(r"\bGeluwatch[A-Z]\w+", playbook(name))}
    assert set() == named - KNOWN


@pytest.mark.parametrize("asked", ["Rollback", "rollback", " ROLLBACK.md "])
def test_a_playbook_is_found_however_it_is_asked_for(asked: str) -> None:
    """Case and file ending do not matter, neither to the playbooks nor to the whole handbook."""
    assert playbook("Rollback") == playbook(asked) == handbook.page(asked)


@pytest.mark.parametrize("ask", [playbook, handbook.page])
def test_an_unknown_page_is_refused_with_the_list(ask: Callable[[str], str]) -> None:
    """The message repeats what was asked and names every playbook there is."""
    with pytest.raises(ConfigError) as caught:
        ask("Nonsense")
    assert all(name in str(caught.value) for name in ("'Nonsense'", *SUMMARIES))


def test_facts_follow_the_settings() -> None:
    """Severities, waits and the matchers of a canary are those that the alerts were rendered with."""
    other = MixinSettings(severities={"page": "p1", "ticket": "p4", "notice": "p5"}, canary='stage="new"', rate_window="7m")
    assert "severity=p4" in playbook("Maintenance", other)
    assert 'geluwatch_forward_passes_total{stage="new"}[7m]' in playbook("Canary", other)


@pytest.mark.parametrize("name", SUMMARIES)
def test_snippets_parse(name: str) -> None:
    """Python is Python, YAML is YAML, and shell is shell, as they stand."""
    text = playbook(name)
    assert all(ast.parse(fence).body for fence in fences(text, "python"))
    assert all(document for fence in fences(text, "yaml") for document in yaml.safe_load_all(fence))
    for fence in fences(text, "shell"):
        assert 0 == subprocess.run(["bash", "-n"], input=fence, text=True, check=False).returncode, fence


def test_no_data_promotes_no_canary() -> None:
    """Argo asks for a result in both conditions, which exclude each other; both tools' queries parse and are guarded by traffic."""
    documents = [document for fence in fences(playbook("Canary"), "yaml") for document in yaml.safe_load_all(fence)]
    by_kind = {document["kind"]: document for document in documents}
    for metric in by_kind["AnalysisTemplate"]["spec"]["metrics"]:
        guard, bound = zip(*(metric[f"{outcome}Condition"].split(" && ") for outcome in ("success", "failure")), strict=True)
        assert {"len(result) > 0"} == set(guard)
        assert len(set(bound)) == 2
        assert metric["count"] * int(metric["interval"].removesuffix("m")) == 24 * 60
    asked = [metric["provider"]["prometheus"]["query"] for metric in by_kind["AnalysisTemplate"]["spec"]["metrics"]]
    for query in [*asked, by_kind["MetricTemplate"]["spec"]["query"]]:
        parsed = promql_parser.parse(query.replace("{{ interval }}", "5m").replace("{{ target }}", "name"))
        assert "and" == str(parsed.op)
        assert "geluwatch_forward_passes_total" in parsed.rhs.prettify()
    hooks = {hook["type"] for hook in by_kind["Canary"]["spec"]["analysis"]["webhooks"]}
    assert {"confirm-promotion", "rollback"} == hooks


Amtool = Callable[..., str]


@pytest.fixture(scope="module")
def amtool(programs: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Amtool]:
    """Run commands of a playbook against a running Alertmanager, with further names put in; return what they print."""
    tool = programs("amtool")
    with Alertmanager(tmp_path_factory.mktemp("alertmanager"), "http://127.0.0.1:1/") as server:

        def run(command: str, **names: str) -> str:
            words = shlex.split(command.replace("http://ALERTMANAGER:9093", server.url))
            done = subprocess.run([tool, *(names.get(word, word) for word in words[1:])], capture_output=True, text=True, check=False)
            assert 0 == done.returncode, done.stderr
            return done.stdout

        yield run


def test_maintenance_can_be_followed(amtool: Amtool) -> None:
    """Each silence of the playbook is accepted, the first keeps the alert back that it is for, and expiring ends it."""
    shell = "".join(fences(playbook("Maintenance"), "shell")).replace("\\\n", "")
    commands = shell.splitlines()
    first, *others = [command for command in commands if "silence add" in command]
    (ask,) = [command for command in commands if "alert query" in command]
    (expire,) = [command for command in commands if "silence expire" in command]
    given = " ".join(f"{name}={value}" for name, value in TICKET.items())
    amtool(f"amtool --alertmanager.url=http://ALERTMANAGER:9093 alert add {given}")
    assert TICKET["alertname"] in amtool(ask)
    number = amtool(first).strip()
    assert TICKET["alertname"] not in amtool(ask)
    amtool(expire, **{"SILENCE-ID": number})
    assert TICKET["alertname"] in amtool(ask)
    assert all(amtool(command).strip() for command in others)


def test_the_mute_interval_is_alertmanagers(programs: Callable[[str], str], tmp_path: Path) -> None:
    """The configuration is accepted, tickets are muted in it, and pages are not."""
    (snippet,) = fences(playbook("Maintenance"), "yaml")
    config = tmp_path / "alertmanager.yml"
    config.write_text(snippet)
    done = subprocess.run([programs("amtool"), "check-config", str(config)], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    muted = {route["receiver"]: "mute_time_intervals" in route for route in yaml.safe_load(snippet)["route"]["routes"]}
    assert {"tickets": True, "pager": False} == muted


class Game:
    """A model in service under a watch, with the names that the playbooks use."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 4))
        config = geluwatch.Config(window_seconds=None, cost_budget=None)
        self.watch: Watch = geluwatch.attach(self.model, name="game", config=config)
        self.names: dict[str, Any] = {"model": self.model, "watch": self.watch, "gelu": self.model[3], "dense": self.model[2]}

    def serve(self) -> geluwatch.Report:
        """Serve a window of traffic; passes that raise are lost, as in a service."""
        for _ in range(8):
            try:
                with torch.no_grad():
                    self.model(torch.randn(64, 16))
            except torch.OutOfMemoryError:
                continue
        return self.watch.close_window()

    def play(self, snippet: str) -> None:
        """Run a snippet of the playbook."""
        exec(snippet, self.names)  # noqa: S102  # the playbook's own text


def test_the_game_day_can_be_played() -> None:
    """Each fault that the playbook injects is seen as it says, and its end ends it."""
    game = Game()
    keep, infinite, dead, kernel, memory, gone = fences(playbook("GameDay"), "python")
    game.play(keep)
    assert "page" != game.serve().verdict
    game.play(infinite)
    assert "3" == game.serve().first_nonfinite
    game.play("model.load_state_dict(kept)")
    game.play(dead)
    assert "dead" == game.serve().sites["3", "post"].gross
    game.play("model.load_state_dict(kept)")
    game.play(kernel)
    parity = game.serve().sites["3", "post"].parity
    assert parity is not None
    assert "declared erf in float32, measured tanh" in parity.fault
    game.play('gelu.approximate = "none"')
    assert 0 == game.serve().totals.traffic.out_of_memory
    game.play(memory)
    assert 8 == game.serve().totals.traffic.out_of_memory
    game.play("full.remove()")
    assert 8 == game.serve().totals.traffic.out_of_memory
    game.play(gone)
    with pytest.raises(geluwatch.errors.DetachedError):
        game.watch.close_window()


def test_the_evidence_of_an_incident_can_be_captured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checklist's snippets write a bundle with a profiler's trace, compare two models, and are a test that a sound model passes."""
    monkeypatch.chdir(tmp_path)

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 4))

        def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.layers(rows),)

    torch.manual_seed(0)
    model, batch = Named(), {"rows": torch.randn(64, 16)}
    trace, compare, regression = fences(playbook("Incident"), "python")
    with geluwatch.attach(model, name="suspect", config=geluwatch.Config(window_seconds=None, cost_budget=None)) as watch:
        names = {"model": model, "watch": watch, "batch": batch, "suspect": model, "trusted": model}
        exec(trace, names)  # noqa: S102  # the playbook's own text
    with zipfile.ZipFile(names["bundle"]) as bundle:
        assert b"aten::gelu" in gzip.decompress(bundle.read("traces/1.json.gz"))
    exec(compare, names)  # noqa: S102
    assert 0.0 == names["difference"]
    exec(regression, names)  # noqa: S102
    with torch.inference_mode():
        expected = model(**batch)[0]
    check: Any = names["test_the_input_of_that_night"]
    check(model, batch, expected)
    with pytest.raises(AssertionError):
        check(model, {"rows": torch.full((64, 16), torch.nan)}, expected)
