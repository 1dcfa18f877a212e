"""The stage of the incidents: processes that serve models, Prometheus, Alertmanager with the example's routes, and an inbox."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from geluwatch.cli.demo.servers import Alertmanager, Prometheus
from geluwatch.cli.demo.webhook import Alert, WebhookReceiver

Order = Mapping[str, Any]
Incident = tuple[str, str, str]
"""Name without its prefix, severity, and model with its version."""


class Process:
    """One process of `served.py`."""

    def __init__(self, store: str, log: Path) -> None:
        self._lock = threading.Lock()
        self._log = log.open("w")
        program = str(Path(__file__).with_name("served.py"))
        self._child = subprocess.Popen(
            [sys.executable, program, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def tell(self, **order: Any) -> str:
        """Give an order; return the address of the pod that it was for."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with self._lock:
            self._child.stdin.write(json.dumps(order) + "\n")
            self._child.stdin.flush()
            answer = self._child.stdout.readline()
        assert answer, f"the process died of {order}: {Path(self._log.name).read_text()[-2000:]}"
        return str(json.loads(answer)["url"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End it, if it has not ended; it has as long as its pods may take."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()
        self._log.close()


class ExampleAlertmanager(Alertmanager):
    """Alertmanager with the example's routes and inhibitions; receivers are the inbox, and waits are seconds."""

    def __init__(self, folder: Path, webhook_url: str, example: bytes) -> None:
        super().__init__(folder, webhook_url)
        self._url, self._example = webhook_url, example

    def arguments(self) -> list[str]:
        """Write the configuration; return the command line's arguments."""
        arguments = super().arguments()
        config = yaml.safe_load(self._example)
        # What is told must not depend on the hour of the week at which the test runs.
        for interval in config["time_intervals"]:
            interval["time_intervals"] = [{"years": ["2000"]}]
        config["receivers"] = [
            {"name": receiver["name"], "webhook_configs": [{"url": self._url, "send_resolved": True}]} if len(receiver) > 1 else receiver
            for receiver in config["receivers"]
        ]
        _hasten(config["route"])
        (self.folder / "alertmanager.yml").write_text(json.dumps(config))
        return arguments


def _hasten(route: dict[str, Any]) -> None:
    for name, seconds in (("group_wait", "1s"), ("group_interval", "2s"), ("repeat_interval", "1h")):
        if name in route or name != "repeat_interval":
            route[name] = seconds
    for child in route.get("routes", ()):
        _hasten(child)


class Stage:
    """What a lane of incidents works with."""

    def __init__(self, processes: Mapping[str, Process], prometheus: Prometheus, inbox: WebhookReceiver) -> None:
        self.processes, self.prometheus, self.inbox = processes, prometheus, inbox
        self.began = time.time()
        self._urls: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def start(self, process: str, pod: str, **order: Any) -> None:
        """Start a pod, or give one an order that changes its address, and have it scraped."""
        url = self.processes[process].tell(pod=pod, **order)
        with self._lock:
            self._urls[order.get("job", order["model"]), pod] = url
            self._scrape()

    def stop(self, process: str, pod: str, job: str) -> None:
        """Take a pod out of service, then end it."""
        with self._lock:
            del self._urls[job, pod]
            self._scrape()
        time.sleep(2)
        self.processes[process].tell(pod=pod, stop=True)

    def close(self) -> None:
        """Take every pod out of service, and end the processes; what was recorded of them stays."""
        with self._lock:
            self._urls.clear()
            self._scrape()
        for process in self.processes.values():
            process.close()

    def _scrape(self) -> None:
        targets: dict[str, list[str]] = {}
        for (job, _), url in self._urls.items():
            targets.setdefault(job, []).append(url)
        self.prometheus.scrape(targets)

    def changes(self, models: Iterable[str] | None = None) -> dict[Incident, list[Alert]]:
        """Return what was notified of each incident, a status that is sent again left out."""
        wanted = None if models is None else set(models)
        found: dict[tuple[Incident, str], list[Alert]] = {}
        for alert in self.inbox.alerts:
            if wanted is None or alert.model in wanted:
                history = found.setdefault((incident(alert), json.dumps(dict(alert.labels), sort_keys=True)), [])
                # What was kept quiet while it fired may be listed as resolved in a later notification about others.
                if alert.status != (history[-1].status if history else "resolved"):
                    history.append(alert)
        merged: dict[Incident, list[Alert]] = {}
        for (about, _), history in found.items():
            merged.setdefault(about, []).extend(history)
        return merged

    def wait_for(self, about: Iterable[Incident], status: str, since: float, timeout: float) -> float:
        """Wait until all of these were notified in a status since a moment; return the seconds that took."""
        wanted, began = set(about), time.time()
        while True:
            seen = {incident(alert) for alert in self.inbox.alerts if alert.status == status and alert.received >= since}
            if wanted <= seen:
                return time.time() - began
            assert time.time() - began < timeout, f"not {status} within {timeout:.0f} s: {sorted(wanted - seen)}; seen {sorted(seen)}"
            time.sleep(0.2)


def incident(alert: Alert) -> Incident:
    """Return which incident an alert is of."""
    version = alert.labels.get("model_version", "")
    return alert.name.removeprefix("Geluwatch"), alert.severity, f"{alert.model} {version}".strip()
