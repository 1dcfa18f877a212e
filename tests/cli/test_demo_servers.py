"""Prometheus, Alertmanager and the receiver that the demonstration starts."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from geluwatch.cli.demo.display import Event
from geluwatch.cli.demo.monitoring import SETTINGS, monitoring
from geluwatch.cli.demo.plain import PlainDisplay
from geluwatch.cli.demo.servers import Alertmanager, Prometheus, ServerError, find, free_port, get
from geluwatch.cli.demo.stage import Stage
from geluwatch.cli.demo.webhook import Alert, WebhookReceiver
from geluwatch.errors import MissingPartError
from geluwatch.mixin.rulefile import rule_file

installed = pytest.mark.skipif(
    shutil.which("prometheus") is None or not (shutil.which("alertmanager") or shutil.which("prometheus-alertmanager")),
    reason="Prometheus and Alertmanager are not installed",
)

FIRING = {
    "status": "firing",
    "labels": {"alertname": "GeluwatchActivationDrift", "model": "minilm", "severity": "warning"},
    "annotations": {"runbook_url": "http://127.0.0.1:1/runbooks/GeluwatchActivationDrift"},
}


def post(url: str, body: bytes) -> int:
    """Return the status of a POST to this machine."""
    target = urlsplit(url)
    connection = http.client.HTTPConnection(target.netloc, timeout=5)
    try:
        connection.request("POST", target.path, body)
        return connection.getresponse().status
    finally:
        connection.close()


def running_in(folder: Path) -> set[int]:
    """Return the processes whose working directory lies in a folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve().is_relative_to(folder):
                found.add(int(process.name))
        except OSError:  # it has ended, or is not ours
            continue
    return found


def test_the_receiver_keeps_and_passes_on_alerts() -> None:
    """Each alert of a notification is kept in order with its time, and passed on at once."""
    told: list[Alert] = []
    began = time.time()
    with WebhookReceiver(told.append) as receiver:
        assert 200 == post(receiver.url, json.dumps({"alerts": [FIRING, {**FIRING, "status": "resolved"}]}).encode())
        firing, resolved = receiver.alerts
    assert told == [firing, resolved]
    assert ("GeluwatchActivationDrift", "minilm", "warning") == (firing.name, firing.model, firing.severity)
    assert ("firing", "resolved") == (firing.status, resolved.status)
    assert firing.runbook_url.endswith("/runbooks/GeluwatchActivationDrift")
    assert began <= firing.received <= time.time()


def test_the_receiver_waits_for_an_alert() -> None:
    """Waiting ends with the alert that was meant, or with None when the time is over."""
    with WebhookReceiver() as receiver:
        later = threading.Timer(0.2, post, (receiver.url, json.dumps({"alerts": [FIRING]}).encode()))
        later.start()
        assert receiver.wait("GeluwatchActivationDrift", "minilm", timeout=5.0) is not None
        assert receiver.wait("GeluwatchActivationDrift", "minilm", status="resolved", timeout=0.05) is None
        assert receiver.find("GeluwatchActivationDrift", "another") is None
        assert receiver.find("GeluwatchActivationDrift", "minilm", since=time.time()) is None
        later.join()


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b'{"alerts": [{}]}', b'{"alerts": 3}'])
def test_the_receiver_refuses_what_is_no_notification(body: bytes) -> None:
    """What cannot be read is answered with 400, and the next notification is taken."""
    with WebhookReceiver() as receiver:
        assert 400 == post(receiver.url, body)
        assert 200 == post(receiver.url, json.dumps({"alerts": [FIRING]}).encode())
        assert 1 == len(receiver.alerts)


def test_a_missing_program_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the program on PATH a server is refused before anything is started, with the command that installs it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for make in (lambda: Prometheus(tmp_path / "p", b"", "http://127.0.0.1:1"), lambda: Alertmanager(tmp_path / "a", "http://127.0.0.1:1")):
        with pytest.raises(MissingPartError, match="is not installed; on Debian and Ubuntu: apt-get install prometheus"):
            make()
    assert [] == list(tmp_path.iterdir())


def test_the_first_program_on_path_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of several names the first that exists counts."""
    program = tmp_path / "prometheus-alertmanager"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program == find("alertmanager", "prometheus-alertmanager")


def test_nothing_answers_on_a_free_port() -> None:
    """A GET to a port without a listener says so in our own words."""
    with pytest.raises(ServerError, match=r"Nothing answers at http://127\.0\.0\.1:"):
        get(f"http://127.0.0.1:{free_port()}/")


@installed
def test_the_servers_start_and_leave_nothing_running(tmp_path: Path) -> None:
    """Both are ready when entered, a target is scraped, and after leaving no process of theirs is left."""
    with monitoring(tmp_path, lambda _: None) as servers:
        assert 2 == len(running_in(tmp_path))
        for url in servers.links.values():
            assert 200 == get(url)[0]
        assert servers.scrape("itself", servers.links["Prometheus alerts"])
        assert () == servers.unexpected
    assert set() == running_in(tmp_path)


@installed
def test_rules_that_cannot_be_read_are_reported(tmp_path: Path) -> None:
    """A server that ends by itself is reported with its last words, and leaves no process behind."""
    server = Prometheus(tmp_path, b"groups: 3\n", "http://127.0.0.1:1")
    with pytest.raises(ServerError, match=r"prometheus did not start; the last it said was: .+"), server:
        pass
    assert set() == running_in(tmp_path)


@installed
def test_an_interrupted_stage_stops_its_servers(tmp_path: Path) -> None:
    """Ctrl-C in the middle of the story ends every server."""

    def interrupted() -> None:
        with Stage(Listening(), tmp_path) as stage:
            assert stage.start_servers()
            assert 2 == len(running_in(tmp_path))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert set() == running_in(tmp_path)


def test_a_stage_without_the_programs_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the programs are missing the story says what to install and goes on without alerts."""
    monkeypatch.setenv("PATH", "")
    display = Listening()
    with Stage(display, tmp_path) as stage:
        assert not stage.start_servers()
        assert stage.scrape("minilm", "http://127.0.0.1:1")
        assert stage.alert("GeluwatchActivationDrift", "minilm") is None
    assert ["apt-get install prometheus prometheus-alertmanager" in event.text for event in display.events] == [True]


def test_the_rules_are_the_product_s_own() -> None:
    """The demonstration's rule file holds the alerts that it waits for."""
    rules = rule_file(SETTINGS).decode()
    assert "alert: GeluwatchNonFiniteActivations" in rules
    assert "alert: GeluwatchActivationDrift" in rules


class Listening(PlainDisplay):
    """A display that keeps events instead of printing them."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.events: list[Event] = []

    def event(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)
