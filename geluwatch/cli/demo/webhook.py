"""Collects what Alertmanager sends to a webhook, so that a program can see which alerts reached somebody."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

Status = Literal["firing", "resolved"]

_LARGEST_BODY = 1 << 20


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of one notification."""

    status: Status
    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    received: float
    """When the notification came, seconds since the epoch."""
    receiver: str = ""
    """Name of Alertmanager's receiver through which it came."""

    @property
    def model(self) -> str:
        """The model that it is about; empty if it is about none."""
        return self.labels.get("model", "")

    @property
    def severity(self) -> str:
        """The value of its `severity` label."""
        return self.labels.get("severity", "")

    @property
    def runbook_url(self) -> str:
        """Where its runbook is served."""
        return self.annotations.get("runbook_url", "")


class WebhookReceiver:
    """Listens on a free port of loopback for Alertmanager's notifications; a context manager.

    Args:
        on_alert: Told of each alert as it comes, in a thread of the receiver.
    """

    def __init__(self, on_alert: Callable[[Alert], None] = lambda _: None) -> None:
        self._on_alert = on_alert
        self._arrived = threading.Condition()
        self._alerts: list[Alert] = []
        self._server = _Server(self._take)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="webhook-receiver", daemon=True)

    @property
    def url(self) -> str:
        """Where Alertmanager is to send its notifications."""
        return f"http://127.0.0.1:{self._server.server_port}/alerts"

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """Every alert received so far, oldest first; one that is sent again counts again."""
        with self._arrived:
            return tuple(self._alerts)

    def find(self, name: str, model: str, *, status: Status = "firing", since: float = 0.0) -> Alert | None:
        """Return the first alert of that name about that model received since a moment, or None."""
        wanted = (name, model, status)
        return next((a for a in self.alerts if (a.name, a.model, a.status) == wanted and a.received >= since), None)

    def wait(self, name: str, model: str, *, status: Status = "firing", since: float = 0.0, timeout: float = 30.0) -> Alert | None:
        """Return that alert as soon as it has come, or None when the time is over."""
        with self._arrived:
            self._arrived.wait_for(lambda: self.find(name, model, status=status, since=since) is not None, timeout)
        return self.find(name, model, status=status, since=since)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)

    def _take(self, notification: Mapping[str, Any]) -> None:
        now = time.time()
        for sent in notification["alerts"]:
            labels, annotations = dict(sent["labels"]), dict(sent["annotations"])
            alert = Alert(sent["status"], labels.get("alertname", ""), labels, annotations, now, notification.get("receiver", ""))
            with self._arrived:
                self._alerts.append(alert)
                self._arrived.notify_all()
            self._on_alert(alert)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, take: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.take = take


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10.0

    def do_POST(self) -> None:
        """Take one notification; what cannot be read as one is refused."""
        try:
            length = min(int(self.headers.get("Content-Length", "0")), _LARGEST_BODY)
            self.server.take(json.loads(self.rfile.read(length)))
            status = 200
        except (ValueError, KeyError, TypeError, AttributeError):
            status = 400
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's own name
        """Log nothing: standard error belongs to the caller."""
