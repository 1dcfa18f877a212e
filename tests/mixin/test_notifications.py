"""The example configuration of Alertmanager, lived through by a real one: who is told of what, and what is kept quiet."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from geluwatch.cli.demo.servers import Server
from geluwatch.mixin.alertmanager import DIGEST_TIME, EXPLANATIONS, MAINTENANCE, Explanation, example
from geluwatch.mixin.rules.alerting import Alert
from tests.mixin.conftest import program
from tests.mixin.firing import ALERTS, BY_NAME, SETTINGS, VALUES, Labels, find, labels_of

ALWAYS = [{"weekdays": ["sunday:saturday"]}]
NEVER = [{"months": ["february"], "days_of_month": ["31"]}]


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
            return self.arrived.wait_for(met, 30)


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


def test_a_setup_without_clusters_and_regions_is_inhibited_alike(weekday: Example) -> None:
    """Labels that both sides lack agree, so NaN explains drift without them; an alert without a model is no model's to explain."""
    inbox = weekday.inbox

    def bare(alert: Alert, *lacking: str, **changed: str) -> Labels:
        return {name: value for name, value in labels_of(alert, **changed).items() if name not in {"cluster", "region", *lacking}}

    weekday.post(*(bare(find(name), model="lone") for name in ("NonFiniteActivations", "Rollout")))
    settle()
    drift = find("ActivationDrift", "ticket")
    weekday.post(*(bare(drift, model=model) for model in ("lone", "lonely")), bare(find("AgentMissing"), "model"))
    assert inbox.wait(lambda: "ActivationDrift lonely 1 -" in inbox.all("model-tickets"))
    assert inbox.wait(lambda: "AgentMissing - - -" in inbox.all("infrastructure-tickets"))
    settle()
    assert "ActivationDrift lone 1 -" not in inbox.all("model-tickets")


def test_a_page_makes_its_own_ticket_needless(weekday: Example) -> None:
    """A model that pages for drift has no ticket for it; another version's ticket is told."""
    inbox, (page, ticket) = weekday.inbox, (find("ActivationDrift", tier) for tier in ("page", "ticket"))
    weekday.post(labels_of(page, model="far"))
    settle()
    weekday.post(labels_of(ticket, model="far"), labels_of(ticket, model="far", model_version="2"))
    assert inbox.wait(lambda: "ActivationDrift far 2 eu" in inbox.all("model-tickets"))
    settle()
    assert "ActivationDrift far 1 eu" not in inbox.all("model-tickets")


def asked(matchers: tuple[str, ...]) -> Labels:
    """Return the labels that matchers of equality ask for."""
    return {matcher.split("=")[0]: matcher.split('"')[1] for matcher in matchers}


def causes_of(found: Explanation, here: Labels, there: Labels) -> list[Labels]:
    """Return the cause of an explanation at one place, and at the other one that looks like it where the explanation asks for more."""
    alert = next((alert for alert in ALERTS if alert.name == found.cause and alert.tier == "page"), BY_NAME.get(found.cause))
    labels = {name: VALUES[name] for name in found.labels} or labels_of(alert)
    extra = asked(found.matchers)
    cause = {**labels, "alertname": found.cause, **extra, **{name: value for name, value in here.items() if name in labels}}
    return [cause, {**cause, **dict.fromkeys(extra, "other"), **there}] if extra else [cause]


def test_every_explanation_holds_for_its_model_and_no_other(weekday: Example) -> None:
    """Whatever is explained is kept back beside its cause, in every tier that it should be, and is told of a neighbour."""
    known = [found for found in EXPLANATIONS if found.labels or found.cause in BY_NAME]
    pairs = [(found, alert) for found in known for alert in ALERTS if alert.name in found.explained and found.tier in {None, alert.tier}]
    assert len(pairs) > 12
    places = [[{"job": f"{where}-{place}", "model": f"{where}-{place}"} for where in ("here", "there")] for place in range(len(pairs))]
    weekday.post(*(cause for (found, _), (here, there) in zip(pairs, places, strict=True) for cause in causes_of(found, here, there)))
    settle()
    kept, told = (
        [{**labels_of(alert, **at[side]), **asked(found.only)} for (found, alert), at in zip(pairs, places, strict=True)] for side in (0, 1)
    )
    weekday.post(*kept, *told)
    inbox = weekday.inbox

    def seen() -> set[tuple[str, str]]:
        labels = [alert["labels"] for notification in inbox.notifications for alert in notification["alerts"]]
        return {(each["alertname"], each.get("model", "")) for each in labels}

    assert inbox.wait(lambda: {(labels["alertname"], labels["model"]) for labels in told} <= seen())
    settle()
    assert set() == {(labels["alertname"], labels["model"]) for labels in kept} & seen()


def test_a_ticket_keeps_no_page_quiet(weekday: Example) -> None:
    """Beside the ticket of an overflow that lies ahead drift pages; its ticket waits."""
    inbox, (page, ticket) = weekday.inbox, (find("ActivationDrift", tier) for tier in ("page", "ticket"))
    weekday.post(labels_of(find("OverflowAhead", "ticket"), model="rising"), labels_of(find("OverflowAhead", "ticket"), model="growing"))
    settle()
    weekday.post(labels_of(page, model="rising"), labels_of(ticket, model="growing"))
    assert inbox.wait(lambda: "ActivationDrift rising 1 eu" in inbox.all("model-pages"))
    settle()
    assert "ActivationDrift growing 1 eu" not in inbox.all("model-tickets")


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
