"""The example configuration of Alertmanager: judged by amtool, and lived through by a real Alertmanager."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from geluwatch.cli.demo.servers import Server
from geluwatch.mixin.alertmanager import DIGEST_TIME, EXPLANATIONS, MAINTENANCE, QUIET_IN_ROLLOUT, example, inhibit_rules
from geluwatch.mixin.rules import alerts
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.rules.annotations import rule_labels
from geluwatch.mixin.settings import MixinSettings
from tests.mixin.conftest import program

SETTINGS = MixinSettings()
RENAMED = replace(SETTINGS, severities={"page": "p1", "ticket": "p3", "notice": "p5"})
ALERTS = alerts(SETTINGS)
BY_NAME = {alert.name: alert for alert in ALERTS}
VALUES = {
    "cluster": "a",
    "namespace": "serving",
    "job": "inference",
    "model": "bge",
    "model_version": "1",
    "region": "eu",
    "instance": "h:1",
}
ALWAYS = [{"weekdays": ["sunday:saturday"]}]
NEVER = [{"months": ["february"], "days_of_month": ["31"]}]
Labels = dict[str, str]


def labels_of(alert: Alert, **changed: str) -> Labels:
    """Return labels as Prometheus sends them for an alert."""
    own = {label: VALUES.get(label, "latency") for label in alert.labels}
    return {"alertname": alert.name, **own, **rule_labels(alert, SETTINGS), **{key: value for key, value in changed.items() if key in own}}


def find(name: str, tier: str | None = None) -> Alert:
    """Return an alert by its name, and its tier where it has several."""
    return next(alert for alert in ALERTS if alert.name == f"Geluwatch{name}" and tier in {None, alert.tier})


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
        assert {"job", "namespace"} <= set(rule["equal"]), rule
        for side in ("source_matchers", "target_matchers"):
            names = rule[side][0].split('"')[1].split("|")
            compared = set(rule["equal"]) - {"alertname"}
            assert all(compared <= set(BY_NAME[name].labels) for name in names if name in BY_NAME), rule


def test_a_rollout_keeps_tickets_quiet_and_nothing_else() -> None:
    """What a rollout silences is a ticket in some tier, is not the canary's, and no page is silenced by a notice."""
    quiet = [alert for alert in ALERTS if alert.name in QUIET_IN_ROLLOUT]
    assert {alert.name for alert in quiet} == {alert.name for alert in quiet if alert.tier == "ticket"}
    assert "GeluwatchCanaryDivergence" not in QUIET_IN_ROLLOUT
    rollouts = [rule for rule in inhibit_rules(SETTINGS) if rule["source_matchers"] == ['alertname="GeluwatchRollout"']]
    assert rollouts
    assert all('severity="warning"' in rule["target_matchers"] for rule in rollouts)


@dataclass
class Inbox:
    """The notifications that came, oldest first, as Alertmanager wrote them."""

    url: str = ""
    notifications: list[dict[str, Any]] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def take(self, notification: dict[str, Any]) -> None:
        """Keep a notification."""
        with self.arrived:
            self.notifications.append(notification)
            self.arrived.notify_all()

    def told(self, receiver: str, status: str = "firing") -> list[tuple[str, ...]]:
        """Return for each notification of a receiver which alerts it held in that status, as `told_as` writes them."""
        with self.arrived:
            sent = [notification["alerts"] for notification in self.notifications if notification["receiver"] == receiver]
        held = (tuple(sorted(told_as(alert["labels"]) for alert in group if alert["status"] == status)) for group in sent)
        return [group for group in held if group]

    def all(self, receiver: str, status: str = "firing") -> set[str]:
        """Return every alert that a receiver has been told of."""
        return {alert for group in self.told(receiver, status) for alert in group}

    def wait(self, met: Callable[[], bool]) -> bool:
        """Return whether a condition is met, as soon as it is or after some seconds."""
        with self.arrived:
            return self.arrived.wait_for(met, 10)


def told_as(labels: Labels) -> str:
    """Return what an alert is called below: name, model, version and region."""
    return " ".join(
        [labels["alertname"].removeprefix("Geluwatch"), *(labels.get(name, "-") for name in ("model", "model_version", "region"))]
    )


class Example(Server):
    """Alertmanager with the example, its receivers in this process, its waits shortened and its hours replaced."""

    names = ("alertmanager", "prometheus-alertmanager")

    def __init__(self, folder: Path, inbox: Inbox, hours: dict[str, Any]) -> None:
        super().__init__(folder)
        self.inbox, self.hours = inbox, hours

    def arguments(self) -> list[str]:
        """Write the configuration; return the command line's arguments."""
        written = yaml.safe_load(example(SETTINGS))
        hurry(written["route"])
        for receiver in written["receivers"]:
            for webhook in receiver.get("webhook_configs", ()):
                webhook["url"] = self.inbox.url
        assert set(self.hours) == {interval["name"] for interval in written["time_intervals"]}
        written["time_intervals"] = [{"name": name, "time_intervals": hours} for name, hours in self.hours.items()]
        (self.folder / "alertmanager.yml").write_text(yaml.safe_dump(written))
        address = f"--web.listen-address=127.0.0.1:{self.port}"
        return ["--config.file=alertmanager.yml", "--storage.path=data", address, "--cluster.listen-address=", "--log.level=warn"]

    def post(self, *fired: Labels, ends: timedelta = timedelta(hours=1)) -> None:
        """Send alerts as Prometheus does."""
        now = datetime.now(UTC)
        sent = [
            {"labels": labels, "startsAt": (now - timedelta(hours=1)).isoformat(), "endsAt": (now + ends).isoformat()} for labels in fired
        ]
        body, head = json.dumps(sent).encode(), {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/v2/alerts", body, head)) as answer:
            assert 200 == answer.status


def hurry(route: dict[str, Any]) -> None:
    """Shorten the waits of a route and of those below it."""
    for name, short in (("group_wait", "300ms"), ("group_interval", "500ms")):
        if name in route:
            route[name] = short
    for child in route.get("routes", ()):
        hurry(child)


@pytest.fixture(scope="module")
def inboxes() -> Iterator[Callable[[], Inbox]]:
    """Return the function that opens an inbox."""
    servers: list[ThreadingHTTPServer] = []

    def opened() -> Inbox:
        inbox = Inbox()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                inbox.take(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        inbox.url = f"http://127.0.0.1:{server.server_port}/"
        return inbox

    yield opened
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def alertmanager() -> str:
    """Return the path of Alertmanager, whose program distributions name differently."""
    return program(next(filter(shutil.which, Example.names), Example.names[0]))


@pytest.fixture(scope="module")
def weekday(alertmanager: str, inboxes: Callable[[], Inbox], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """Return an Alertmanager at a time that is neither maintenance nor the digest's."""
    with Example(tmp_path_factory.mktemp("weekday"), inboxes(), {MAINTENANCE: NEVER, DIGEST_TIME: NEVER}) as server:
        yield server


@pytest.fixture(scope="module")
def maintained(alertmanager: str, inboxes: Callable[[], Inbox], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """Return an Alertmanager in the midst of maintenance on a Monday morning."""
    with Example(tmp_path_factory.mktemp("maintained"), inboxes(), {MAINTENANCE: ALWAYS, DIGEST_TIME: ALWAYS}) as server:
        yield server


def settle() -> None:
    """Wait for what has been sent to be known, or for what must not come to have come."""
    time.sleep(0.8)


def test_a_page_of_nan_explains_drift_of_the_same_model_alone(weekday: Example) -> None:
    """While a model pages for NaN its drift is not told; that of another model, region or version is."""
    inbox = weekday.inbox
    weekday.post(labels_of(find("NonFiniteActivations"), model="one"))
    assert inbox.wait(lambda: "NonFiniteActivations one 1 eu" in inbox.all("model-pages"))
    drift = find("ActivationDrift", "ticket")
    elsewhere = ({"model": "two"}, {"model": "one", "region": "us"}, {"model": "one", "model_version": "2"})
    weekday.post(labels_of(drift, model="one"), *(labels_of(drift, **changed) for changed in elsewhere))
    expected = {"ActivationDrift two 1 eu", "ActivationDrift one 1 us", "ActivationDrift one 2 eu"}
    assert inbox.wait(lambda: expected <= inbox.all("model-tickets"))
    settle()
    assert "ActivationDrift one 1 eu" not in inbox.all("model-tickets")


def test_a_page_of_nan_explains_whatever_follows_from_it(weekday: Example) -> None:
    """Beside NaN nobody is told of gross faults, drift, saturation, an overflow or training, in any tier; a wrong kernel is told."""
    inbox = weekday.inbox
    weekday.post(labels_of(find("NonFiniteActivations"), model="nan"))
    settle()
    follow = ("GrossFault", "ActivationDrift", "PodDrift", "Saturation", "OverflowAhead", "TrainingFault")
    weekday.post(*(labels_of(alert, model="nan") for alert in ALERTS if alert.name.removeprefix("Geluwatch") in follow))
    weekday.post(labels_of(find("KernelMismatch"), model="nan"))
    assert inbox.wait(lambda: "KernelMismatch nan 1 eu" in inbox.all("model-tickets"))
    settle()
    told = (alert for receiver in ("model-pages", "model-tickets") for alert in inbox.all(receiver) if " nan " in alert)
    assert {"NonFiniteActivations nan 1 eu", "KernelMismatch nan 1 eu"} == set(told)


def test_a_page_makes_its_own_ticket_needless(weekday: Example) -> None:
    """A model that pages for drift has no ticket for it; another version's ticket is told."""
    inbox, (page, ticket) = weekday.inbox, (find("ActivationDrift", tier) for tier in ("page", "ticket"))
    weekday.post(labels_of(page, model="far"))
    settle()
    weekday.post(labels_of(ticket, model="far"), labels_of(ticket, model="far", model_version="2"))
    assert inbox.wait(lambda: "ActivationDrift far 2 eu" in inbox.all("model-tickets"))
    settle()
    assert "ActivationDrift far 1 eu" not in inbox.all("model-tickets")


def test_every_explanation_holds_for_its_model_and_no_other(weekday: Example) -> None:
    """Whatever is explained is kept back beside its cause, in every tier that it should be, and is told of a neighbour."""
    pairs = [
        (found, alert)
        for found in EXPLANATIONS
        for alert in ALERTS
        if alert.name in found.explained and (found.labels or found.cause in BY_NAME) and found.tier in {None, alert.tier}
    ]
    assert len(pairs) > 12
    causes, kept, told = [], [], []
    for place, (found, alert) in enumerate(pairs):
        extra = {matcher.split("=")[0]: matcher.split('"')[1] for matcher in found.matchers}
        job = {"job": f"explained-{place}"}
        labels = dict.fromkeys(found.labels, "") or labels_of(BY_NAME[found.cause])
        causes.append({**labels, **{name: VALUES[name] for name in found.labels}, "alertname": found.cause, **extra, **job})
        kept.append({**labels_of(alert), **job})
        told.append({**labels_of(alert), "job": f"told-{place}"})
        if extra:
            causes.append({**causes[-1], **dict.fromkeys(extra, "other"), "job": f"told-{place}"})
    weekday.post(*causes)
    settle()
    weekday.post(*kept, *told)
    inbox = weekday.inbox

    def jobs() -> set[tuple[str, str]]:
        seen = [alert["labels"] for notification in inbox.notifications for alert in notification["alerts"]]
        return {(labels["alertname"], labels["job"]) for labels in seen}

    assert inbox.wait(lambda: {(labels["alertname"], labels["job"]) for labels in told} <= jobs())
    settle()
    assert set() == {(labels["alertname"], labels["job"]) for labels in kept} & jobs()


def test_a_rollout_silences_the_ticket_of_drift_and_not_the_page_of_nan(weekday: Example) -> None:
    """Nobody is told of the rollout itself; while it lasts tickets wait, whatever the version, and pages and the canary's do not."""
    inbox = weekday.inbox
    weekday.post(labels_of(find("Rollout"), model="new"))
    settle()
    rolled = [labels_of(find("ActivationDrift", tier), model="new", model_version="2") for tier in ("ticket", "page")]
    weekday.post(rolled[0], labels_of(find("AgentMissing"), model="new"), labels_of(find("KernelMismatch"), model="new"))
    weekday.post(labels_of(find("NonFiniteActivations"), model="new"))
    assert inbox.wait(lambda: "NonFiniteActivations new 1 eu" in inbox.all("model-pages"))
    assert inbox.wait(lambda: "KernelMismatch new 1 eu" in inbox.all("model-tickets"))
    weekday.post(rolled[1])
    assert inbox.wait(lambda: "ActivationDrift new 2 eu" in inbox.all("model-pages"))
    settle()
    assert "ActivationDrift new 2 eu" not in inbox.all("model-tickets")
    assert "AgentMissing new - -" not in inbox.all("infrastructure-tickets")
    assert all("Rollout" not in alert for notification in inbox.notifications for alert in map(str, notification["alerts"]))


def test_what_a_rollout_kept_quiet_is_told_after_it(weekday: Example) -> None:
    """A ticket that still fires when the rollout is over is sent then."""
    inbox, rollout = weekday.inbox, labels_of(find("Rollout"), model="late")
    weekday.post(rollout)
    settle()
    weekday.post(labels_of(find("ActivationDrift", "ticket"), model="late"))
    settle()
    assert "ActivationDrift late 1 eu" not in inbox.all("model-tickets")
    weekday.post(rollout, ends=timedelta(seconds=-1))
    assert inbox.wait(lambda: "ActivationDrift late 1 eu" in inbox.all("model-tickets"))


def test_one_incident_is_one_page_and_resolves(weekday: Example) -> None:
    """Pages of a model come as one notification, its tickets as another; another model's come apart; and their ends are told."""
    inbox = weekday.inbox
    pages = [
        labels_of(find("NonFiniteActivations"), model="sick"),
        labels_of(find("OverflowAhead", "page"), model="sick", model_version="2"),
    ]
    tickets = [labels_of(find("KernelMismatch"), model="sick"), labels_of(find("SitesBlind"), model="sick")]
    neighbour = labels_of(find("KernelMismatch"), model="other")
    weekday.post(*pages, *tickets, neighbour)
    assert inbox.wait(lambda: ("KernelMismatch other 1 eu",) in inbox.told("model-tickets"))
    assert inbox.wait(lambda: ("NonFiniteActivations sick 1 eu", "OverflowAhead sick 2 eu") in inbox.told("model-pages"))
    assert inbox.wait(lambda: ("KernelMismatch sick 1 eu", "SitesBlind sick 1 eu") in inbox.told("model-tickets"))
    weekday.post(pages[0], ends=timedelta(seconds=-1))
    assert inbox.wait(lambda: ("NonFiniteActivations sick 1 eu",) in inbox.told("model-pages", "resolved"))
    assert [] == inbox.told("weekly-digest")


def test_maintenance_silences_tickets_and_no_page(maintained: Example) -> None:
    """During maintenance NaN and memory still page; tickets of either owner wait, and are in Monday's digest, a list for each model."""
    inbox = maintained.inbox
    maintained.post(labels_of(find("AgentMissing")), labels_of(find("KernelMismatch")), labels_of(find("SitesBlind"), region="us"))
    maintained.post(labels_of(find("KernelMismatch"), model="other"))
    maintained.post(labels_of(find("NonFiniteActivations"), model="other"), labels_of(find("OutOfMemory"), model="other"))
    assert inbox.wait(lambda: {"NonFiniteActivations other 1 eu"} == inbox.all("model-pages"))
    assert inbox.wait(lambda: {"OutOfMemory other 1 eu"} == inbox.all("infrastructure-pages"))
    of_model = ("AgentMissing bge - -", "KernelMismatch bge 1 eu", "SitesBlind bge 1 us")
    assert inbox.wait(lambda: {of_model, ("KernelMismatch other 1 eu",)} <= set(inbox.told("weekly-digest")))
    settle()
    silent = ("model-tickets", "infrastructure-tickets", "nobody")
    assert {receiver: [] for receiver in silent} == {receiver: inbox.told(receiver) for receiver in silent}
