"""Speaks HTTP/1.1 with one client of the listener: checks the request, finds its route, writes the answer."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from geluwatch.export.messages import Request, Response, Route, text

_LONGEST_REQUEST_LINE = 4096
_SMALLEST_COMPRESSED = 1024

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept, Accept-Encoding",
}


class RoutedServer(ThreadingHTTPServer):
    """The part of the server that a handler reads."""

    routes: Mapping[str, Route]
    hosts: frozenset[str] | None
    """Names that the Host header may hold; None admits any."""
    on_error: Callable[[Exception], None]
    stopping: bool
    """Whether the answer being made is the last one on its connection."""


class Incoming(io.RawIOBase):
    """What a client sends, up to a moment: a time-out of the socket would begin anew with every byte."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.deadline = 0.0
        """As `time.monotonic` counts."""

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has come, or wait for it until the deadline.

        Raises:
            TimeoutError: Nothing came by then.
        """
        usual = self._connection.gettimeout()
        self._connection.settimeout(max(self.deadline - time.monotonic(), 0.001))
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(usual)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD from the server's routes; anything else is refused in one short sentence."""

    server: RoutedServer
    raw_requestline: bytes
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # that of a request too broken to say; for 0.9 an answer would have no head
    timeout = 10.0  # seconds until a request's head has come, from the answer before it on, and for an answer to be taken
    # Head and body leave together: sent apart, the body would wait until the client had acknowledged the head.
    wbufsize = -1
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Prepare to read, with a deadline."""
        super().setup()
        self.rfile.close()
        self._incoming = Incoming(self.connection)
        self.rfile = io.BufferedReader(self._incoming)

    def handle_one_request(self) -> None:
        """Wait for a request and answer it."""
        self._incoming.deadline = time.monotonic() + self.timeout
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Read the request's head, after refusing an overlong first line."""
        if len(self.raw_requestline) > _LONGEST_REQUEST_LINE:
            self.command, self.requestline, self.request_version = "", "", self.protocol_version
            self.send_error(414)
            return False
        return super().parse_request()

    def do_GET(self) -> None:
        """Answer a GET, or a HEAD, which differs only in that no body is sent."""
        # A body has no meaning here and is not read, so what follows it on this connection could not be trusted.
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True
        self._send(self._respond(), compress=_accepts_gzip(self.headers.get("Accept-Encoding", "")))

    def do_HEAD(self) -> None:
        """Answer a HEAD."""
        self.do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a request that the base class could not parse or has no method for, and hang up."""
        del message, explain  # they repeat what the client sent
        self.close_connection = True
        if code == 501:
            self._send(text(405, "Only GET and HEAD are answered here.", {"Allow": "GET, HEAD"}))
        else:
            self._send(text(code, f"{code} {self.responses[code][0]}."))

    def version_string(self) -> str:
        """Return the Server header; it names no version of Python."""
        return "geluwatch"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own name
        """Log nothing: standard error belongs to the host."""

    def _respond(self) -> Response:
        host = self.headers.get("Host")
        if self.server.hosts is not None and host is not None and _hostname(host) not in self.server.hosts:
            # Else a web page anywhere could point its own name at this machine and read what is served here.
            return text(403, "This listener answers requests to localhost only; use http://localhost and the port.")
        try:
            target = urlsplit(self.path)
            request = Request(unquote(target.path), _first_values(target.query), self.headers.get("Accept"))
        except ValueError:
            return text(400, "The address cannot be read.")
        return self._route(request)

    def _route(self, request: Request) -> Response:
        routes = self.server.routes
        route = routes.get(request.path)
        if route is None:
            return _elsewhere(request.path, routes)
        try:
            return route(request)
        except Exception as error:  # noqa: BLE001 - a broken page must not end the listener, nor reach the host
            self.server.on_error(error)
            return text(500, f"This page failed: {type(error).__name__}. The failure has been counted; the other pages still work.")

    def _send(self, response: Response, *, compress: bool = False) -> None:
        compress = compress and len(response.body) > _SMALLEST_COMPRESSED
        body = response.compressed if compress else response.body
        if self.server.stopping:
            self.close_connection = True
        self.send_response(response.status)
        headers = {**_HEADERS, "Content-Type": response.content_type, **response.headers, "Content-Length": str(len(body))}
        if compress:
            headers["Content-Encoding"] = "gzip"
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _elsewhere(path: str, routes: Mapping[str, Route]) -> Response:
    other = path.removesuffix("/") if path.endswith("/") else f"{path}/"
    if other in routes:
        return text(308, f"It is at {other}.", {"Location": quote(other)})
    return text(404, "\n".join(["There is nothing here. These paths exist:", *sorted(routes)]))


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _first_values(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query, keep_blank_values=True, max_num_fields=20).items()}


def _accepts_gzip(accept_encoding: str) -> bool:
    for choice in accept_encoding.lower().split(","):
        coding, _, weight = choice.replace(" ", "").partition(";q=")
        if coding in ("gzip", "*"):
            return not weight or weight.strip("0.") != ""
    return False
