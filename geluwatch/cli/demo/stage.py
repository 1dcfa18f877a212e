"""What every phase of the demonstration stands on: the display, the servers if there are any, and the findings."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from geluwatch.cli.demo import words
from geluwatch.cli.demo.display import Display, Event, Tone, short_name
from geluwatch.cli.demo.monitoring import Monitoring, monitoring, opens
from geluwatch.cli.demo.outcome import Finding
from geluwatch.cli.demo.webhook import Alert
from geluwatch.errors import MissingPartError
from geluwatch.records import Report

ALERT_SECONDS = 60.0
"""Longest wait for a verdict and its alert; ten seconds are usual."""


@dataclass(frozen=True, slots=True)
class Detection:
    """A cause, and what the watch and the servers made of it."""

    began: float
    """When the cause began, seconds since the epoch."""
    report: Report | None = None
    """The first report that showed it."""
    seen: float = 0.0
    """When that report was made."""
    layer: str | None = None
    """The layer it named first."""
    alert: Alert | None = None


class Stage:
    """Holds what the phases share; a context manager that ends everything entered into `open`.

    Args:
        display: Where the story is shown.
        folder: Where servers keep their data; None runs without servers.
    """

    def __init__(self, display: Display, folder: Path | None) -> None:
        self.display = display
        self.open = ExitStack()
        self.servers: Monitoring | None = None
        self.findings: list[Finding] = []
        self.links: dict[str, str] = {}
        self._folder = folder
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.open.close()

    @property
    def elapsed(self) -> float:
        """Seconds since the demonstration began."""
        return time.monotonic() - self._began

    def say(self, tone: Tone, text: str) -> None:
        """Show an event."""
        self.display.event(Event(self.elapsed, tone, text))

    def start_servers(self) -> bool:
        """Start Prometheus and Alertmanager; return whether they run. Where they are not installed, say what to install."""
        if self._folder is None:
            self.say("info", "without servers, as asked for: the watch's own verdicts are shown, alerts are not")
            return False
        try:
            self.servers = self.open.enter_context(monitoring(self._folder, self._alert_came))
        except MissingPartError as error:
            self.say("info", f"the watch's own verdicts are shown, alerts are not: {error}")
            return False
        self.links.update(self.servers.links)
        for what, url in self.servers.links.items():
            self.say("info", f"{what}: {url}")
        return True

    def scrape(self, model: str, url: str) -> bool:
        """Let Prometheus scrape a watch, where it runs; return False if it could not."""
        if self.servers is None:
            return True
        scraped = self.servers.scrape(model, url)
        self.say("good" if scraped else "bad", f"Prometheus {'scrapes' if scraped else 'could not scrape'} {model}, once a second")
        return scraped

    def expect(self, name: str, model: str) -> None:
        """Note that this alert is called for from now on."""
        if self.servers is not None:
            self.servers.expect(name, model)

    def alert(self, name: str, model: str, *, resolved: bool = False, timeout: float = 0.0) -> Alert | None:
        """Return an expected alert once it fires, or is resolved; None without servers or when the time is over."""
        return self.servers.alert(name, model, "resolved" if resolved else "firing", timeout) if self.servers else None

    def judge(self, promise: str, alert: str, found: Detection, note: str, *, right: bool) -> bool:
        """Add a finding about something that had to be detected; return whether the promise was kept.

        Args:
            promise: What had to happen.
            alert: The alert that belongs to it.
            found: What was detected.
            note: What happened, in a sentence.
            right: Whether what was detected is what was done.
        """
        faults = list(self._faults(found, right=right))
        layer = short_name(found.report, found.layer) if found.report else ""
        self.findings.append(
            Finding(
                promise=promise,
                kept=not faults,
                note="; ".join(faults) or note,
                layer=layer,
                seen_after=found.seen - found.began if found.report else None,
                alert=alert,
                alert_after=found.alert.received - found.began if found.alert else None,
            )
        )
        for fault in faults:
            self.say("bad", fault)
        return not faults

    def _faults(self, found: Detection, *, right: bool) -> list[str]:
        if found.report is None or found.layer is None:
            return ["the watch did not see it"]
        faults = [] if right else [f"the watch named {found.layer} first, which is wrong, or missed forward passes"]
        if self.servers is None:
            return faults
        if found.alert is None:
            return [*faults, f"no alert came within {ALERT_SECONDS:.0f} s"]
        if found.layer not in found.alert.annotations.get("description", ""):
            faults.append(f"the alert does not name {found.layer}")
        if not opens(found.alert.runbook_url):
            faults.append(f"the runbook {found.alert.runbook_url} does not open")
        return faults

    def _alert_came(self, alert: Alert) -> None:
        what = f"{alert.name} for {alert.model or 'no model'}"
        if alert.status == "resolved":
            self.say("good", f"resolved: {what}")
            return
        answer = "opens" if opens(alert.runbook_url) else "does not open"
        self.say(
            "page" if alert.severity == "critical" else "ticket",
            f"alert received: {what}, severity {alert.severity}\n{words.description(alert)}\nrunbook {answer}: {alert.runbook_url}",
        )
