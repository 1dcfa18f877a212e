"""Prometheus and Alertmanager on loopback, each with a configuration, a folder and a port of its own, for a while.

Both are context managers: entered, they are ready to be asked; left, their whole process group is gone.

    with WebhookReceiver() as receiver, Alertmanager(folder / "am", receiver.url) as alertmanager:
        with Prometheus(folder / "prom", rule_file(MixinSettings.quick()), alertmanager.url) as prometheus:
            prometheus.scrape({"minilm": watch.serve()})
            receiver.wait("GeluwatchNonFiniteActivations", "minilm")
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import quote, urlsplit

from geluwatch.errors import GeluwatchError, MissingPartError
from geluwatch.mixin.alertmanager import inhibit_rules
from geluwatch.mixin.settings import MixinSettings

INSTALL = "apt-get install prometheus prometheus-alertmanager"

_SECONDS_TO_START = 60.0
_SECONDS_TO_STOP = 5.0
_ATTEMPTS = 3  # a port that was free may be taken before the server binds it


class ServerError(GeluwatchError):
    """A server that the demonstration started did not come up, or does not answer."""


class Server(ABC):
    """One server program as a child process, in a process group of its own."""

    names: ClassVar[tuple[str, ...]]
    """What the program is called; distributions differ."""

    def __init__(self, folder: Path) -> None:
        self.program = find(*self.names)
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Base URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def arguments(self) -> list[str]:
        """Write the configuration below the folder; return the command line's arguments."""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(_ATTEMPTS):
            self.port = free_port()
            try:
                self._start()
            except BaseException:
                self.stop()
                raise
            if self._process is not None:
                return self
        raise ServerError(f"{self.program.name} did not start; the last it said was: {self._last_words()}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process group, with force if it does not end when asked; again does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        for ask in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, ask)
                process.wait(_SECONDS_TO_STOP)
            except ProcessLookupError:
                process.wait()
            except subprocess.TimeoutExpired:
                continue
            return

    def _start(self) -> None:
        """Start the program and wait until it is ready; leave no process behind where it ended by itself."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # the program was found on PATH, its arguments are ours
                [self.program, *self.arguments()], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + _SECONDS_TO_START
        while self._process.poll() is None:
            if _is_ready(f"{self.url}/-/ready"):
                return
            if time.monotonic() > deadline:
                raise ServerError(f"{self.program.name} was not ready within {_SECONDS_TO_START:.0f} seconds: {self._last_words()}")
            time.sleep(0.05)
        self._process = None

    def _last_words(self) -> str:
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "nothing"


class Alertmanager(Server):
    """Alertmanager, sending every alert to one webhook at once; what explains others keeps them quiet as in the rendered example.

    Args:
        folder: Where its configuration, data and log are kept.
        webhook_url: Receiver of the notifications, for example `WebhookReceiver.url`.

    Raises:
        MissingPartError: The program is not installed.
        ServerError: On entering, when it does not start.
    """

    names = ("alertmanager", "prometheus-alertmanager")

    def __init__(self, folder: Path, webhook_url: str) -> None:
        super().__init__(folder)
        self._webhook_url = webhook_url

    def arguments(self) -> list[str]:
        """Write the configuration; return the command line's arguments."""
        route = {"group_by": ["alertname", "model"], "group_wait": "1s", "group_interval": "2s", "repeat_interval": "1h"}
        routes = (("critical", "page"), ("info", "nobody"))
        webhook = {"webhook_configs": [{"url": self._webhook_url, "send_resolved": True}]}
        config = {
            "route": {**route, "receiver": "ticket", "routes": [{"matchers": [f'severity="{s}"'], "receiver": r} for s, r in routes]},
            "receivers": [{"name": "nobody"}, *({"name": name, **webhook} for name in ("page", "ticket"))],
            "inhibit_rules": inhibit_rules(MixinSettings.quick()),
        }
        # JSON is YAML, and needs no library.
        (self.folder / "alertmanager.yml").write_text(json.dumps(config, indent=2))
        return [
            "--config.file=alertmanager.yml",
            "--storage.path=data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]


class Prometheus(Server):
    """Prometheus with a scrape and evaluation interval of one second; targets may come and go while it runs.

    Args:
        folder: Where its configuration, data and log are kept.
        rules: A rule file, for example that of `geluwatch.mixin.rulefile.rule_file`.
        alertmanager_url: Where alerts are sent.

    Raises:
        MissingPartError: The program is not installed.
        ServerError: On entering, when it does not start.
    """

    names = ("prometheus",)

    def __init__(self, folder: Path, rules: bytes, alertmanager_url: str) -> None:
        super().__init__(folder)
        self._rules = rules
        self._alertmanager_url = alertmanager_url

    def arguments(self) -> list[str]:
        """Write configuration, rules and an empty list of targets; return the command line's arguments."""
        alertmanager = {"static_configs": [{"targets": [urlsplit(self._alertmanager_url).netloc]}]}
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["geluwatch.rules.yaml"],
            "alerting": {"alertmanagers": [alertmanager]},
            "scrape_configs": [{"job_name": "geluwatch", "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}]}],
        }
        (self.folder / "prometheus.yml").write_text(json.dumps(config, indent=2))
        (self.folder / "geluwatch.rules.yaml").write_bytes(self._rules)
        self.scrape({})
        return [
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    @property
    def alerts_page(self) -> str:
        """URL of the page of alerts; Debian's package has only the classic pages."""
        page = f"{self.url}/alerts"
        return page if get(page)[0] == 200 else f"{self.url}/classic/alerts"

    def scrape(self, targets: Mapping[str, str | Sequence[str]]) -> None:
        """Scrape these from now on, and nothing else; Prometheus notices within a second or so.

        Args:
            targets: Base URLs, as `Watch.serve` returns them, one or several for each value of the `job` label.
        """
        listed = {job: [urls] if isinstance(urls, str) else urls for job, urls in targets.items()}
        groups = [{"targets": [urlsplit(url).netloc for url in urls], "labels": {"job": job}} for job, urls in listed.items()]
        draft = self.folder / "targets.draft"
        draft.write_text(json.dumps(groups))
        draft.replace(self.folder / "targets.json")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query: `metric` and `value` of each series.

        Raises:
            ServerError: The server does not answer, or refuses the query.
        """
        return self._ask(f"query?query={quote(expression)}", expression)

    def query_range(self, expression: str, *, began: float, step: float) -> list[dict[str, Any]]:
        """Return the result of a range query from a moment until now: `metric` and `values` of each series.

        Raises:
            ServerError: The server does not answer, or refuses the query.
        """
        return self._ask(f"query_range?query={quote(expression)}&start={began}&end={time.time()}&step={step}", expression)

    def _ask(self, path: str, expression: str) -> list[dict[str, Any]]:
        status, body = get(f"{self.url}/api/v1/{path}", timeout=120.0)  # as long as Prometheus gives a query
        answer = json.loads(body) if body else {}
        if status != 200:
            raise ServerError(f"Prometheus refused the query {expression!r}: {answer.get('error', status)}")
        return list(answer["data"]["result"])

    def wait_until_scraped(self, job: str, timeout: float = 20.0) -> bool:
        """Return whether a target of that job has been scraped before the time is over."""
        deadline = time.monotonic() + timeout
        while not self.query(f"up{{job={json.dumps(job)}}} == 1"):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True


def find(*names: str) -> Path:
    """Return the first program of these names on PATH.

    Raises:
        MissingPartError: There is none.
    """
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise MissingPartError(f"The program {' or '.join(names)} is not installed; on Debian and Ubuntu: {INSTALL}")


def free_port() -> int:
    """Return a port of loopback that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, timeout: float = 10.0) -> tuple[int, bytes]:
    """Return status and body of a GET to a server on this machine; no proxy is asked, whatever the environment says.

    Raises:
        ServerError: Nothing answers there.
    """
    target = urlsplit(url)
    connection = http.client.HTTPConnection(target.netloc, timeout=timeout)
    try:
        connection.request("GET", target._replace(scheme="", netloc="").geturl())
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"Nothing answers at {url}: {error}") from error
    finally:
        connection.close()


def _is_ready(url: str) -> bool:
    try:
        return get(url, timeout=1.0)[0] == 200
    except ServerError:
        return False
