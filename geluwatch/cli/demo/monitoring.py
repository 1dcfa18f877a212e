"""The alerting half of the demonstration: Prometheus, Alertmanager and the receiver, started and stopped as one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from geluwatch.cli.demo.servers import Alertmanager, Prometheus, ServerError, get
from geluwatch.cli.demo.webhook import Alert, Status, WebhookReceiver
from geluwatch.mixin.rulefile import rule_file
from geluwatch.mixin.settings import MixinSettings
from geluwatch.mixin.thresholds import Thresholds

NONFINITE = "GeluwatchNonFiniteActivations"
DRIFT = "GeluwatchActivationDrift"

# A training run keeps no baseline; in the demonstration it would be told so within seconds.
# How quick its passes are is no promise of the demonstration, and its machine may be busy.
SETTINGS = replace(MixinSettings.quick(), baseline_missing_for="1h", thresholds=Thresholds(latency_seconds=10.0, latency_factor=100.0))


class Monitoring:
    """The running servers, and which alerts may come by now."""

    def __init__(self, prometheus: Prometheus, alertmanager: Alertmanager, receiver: WebhookReceiver) -> None:
        self._prometheus = prometheus
        self._receiver = receiver
        self._targets: dict[str, str] = {}
        self._expected: dict[tuple[str, str], float] = {}
        self.links = {"Prometheus alerts": prometheus.alerts_page, "Alertmanager": alertmanager.url}

    def scrape(self, model: str, url: str) -> bool:
        """Add a watch to what is scraped; return whether its first scrape came."""
        self._targets[model] = url
        self._prometheus.scrape(self._targets)
        return self._prometheus.wait_until_scraped(model)

    def expect(self, name: str, model: str) -> None:
        """From now on this alert is no false one."""
        self._expected.setdefault((name, model), time.time())

    def alert(self, name: str, model: str, status: Status, timeout: float = 0.0) -> Alert | None:
        """Return the alert that came in this status since it is expected, or None when the time is over."""
        return self._receiver.wait(name, model, status=status, since=self._expected[name, model], timeout=timeout)

    @property
    def unexpected(self) -> tuple[Alert, ...]:
        """Alerts that fired although nothing called for them."""
        firing = (alert for alert in self._receiver.alerts if alert.status == "firing")
        return tuple(alert for alert in firing if alert.received < self._expected.get((alert.name, alert.model), float("inf")))


@contextmanager
def monitoring(folder: Path, on_alert: Callable[[Alert], None]) -> Iterator[Monitoring]:
    """Start everything with the demonstration's rules, and stop it at the end.

    Raises:
        MissingPartError: A program is not installed.
        ServerError: A program does not start.
    """
    with (
        WebhookReceiver(on_alert) as receiver,
        Alertmanager(folder / "alertmanager", receiver.url) as alertmanager,
        Prometheus(folder / "prometheus", rule_file(SETTINGS), alertmanager.url) as prometheus,
    ):
        yield Monitoring(prometheus, alertmanager, receiver)


def opens(url: str) -> bool:
    """Return whether a page answers with 200."""
    try:
        return get(url)[0] == 200
    except (ServerError, ValueError):
        return False
