"""Our own HTTP listener: on loopback unless told otherwise, bounded in every direction, and gone when closed."""

from __future__ import annotations

import errno
import ipaddress
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from geluwatch.errors import ListenError
from geluwatch.export.handler import Handler, RoutedServer
from geluwatch.export.messages import Route

_MOST_CONNECTIONS = 64
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_SECONDS_TO_ANSWER = 1.0
_SECONDS_TO_END = 2.0
_SECONDS_WITHOUT = 0.5
_NOTHING_LEFT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener:
    """Serves routes over HTTP from threads of its own.

    Args:
        routes: What answers each path; paths are matched whole.
        host: Address or name to listen on.
        port: Port to listen on; 0 takes any free one.
        allow_remote: Whether an address that other machines can reach is meant.
        on_error: Told of a route that failed; must not raise.

    Raises:
        ListenError: The address is unusable, or open to others without `allow_remote`.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        allow_remote: bool = False,
        on_error: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._routes = routes
        self._host = host
        self._address = _resolve(host, port)
        self._local = ipaddress.ip_address(self._address[1].partition("%")[0]).is_loopback
        self._on_error = on_error
        self._server: _Server | None = None
        if not self._local and not allow_remote:
            raise ListenError(
                f"Listening on {host} would show the metrics and the live page, which have no password, to other machines; "
                "listen on 127.0.0.1, or pass allow_remote=True if that is meant."
            )

    def start(self) -> str:
        """Begin to listen and return the base URL, without a slash at its end; once started, only return it.

        Raises:
            ListenError: The port is taken, or the system refuses it.
        """
        if self._server is None:
            try:
                self._server = _Server(self._address, self._routes, self._hosts(), self._on_error)
            except OSError as error:
                raise ListenError(_refusal(self._host, self._address[2], error)) from error
            self._server.start()
        return _url(self._server)

    def close(self) -> None:
        """Stop listening, hang up on every client and free the port; calling it again does nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def forget_parent(self) -> None:
        """Let go of what a forked child has inherited: its parent listens, and the port is to be free when that ends."""
        server, self._server = self._server, None
        if server is not None:
            server.let_go()

    def _hosts(self) -> frozenset[str] | None:
        return frozenset((*_LOOPBACK_NAMES, self._host.lower())) if self._local else None


class _Server(RoutedServer):
    """A threading server that bounds its connections and can end those that are still open."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = _MOST_CONNECTIONS
    timeout = 1.0  # seconds after which `stop` is seen even where hanging up the socket wakes nobody

    def __init__(
        self,
        address: tuple[socket.AddressFamily, str, int],
        routes: Mapping[str, Route],
        hosts: frozenset[str] | None,
        on_error: Callable[[Exception], None],
    ) -> None:
        self.address_family, host, port = address
        self.routes, self.hosts, self.on_error = routes, hosts, on_error
        self._open: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self.stopping = False
        self._thread = threading.Thread(target=self._accept, name="geluwatch-listener", daemon=True)
        super().__init__((host, port), Handler)

    def start(self) -> None:
        """Begin to accept connections, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Free the port and end every connection, so that nothing more is answered and no thread is left.

        Requests that have come are answered first: whoever has been sent a head can count on the body.
        """
        self.stopping = True
        _hang_up(self.socket)
        self._end([self._thread], _SECONDS_TO_END)
        self.server_close()
        with self._lock:
            left = dict(self._open)
        for connection in left:
            _hang_up(connection, socket.SHUT_RD)
        self._end(left.values(), _SECONDS_TO_ANSWER)
        for connection in left:
            _hang_up(connection)
        self._end(left.values(), _SECONDS_TO_END)

    def let_go(self) -> None:
        """Close every socket in this process alone; hanging up would end the connections of the process that they come from."""
        for inherited in (self.socket, *tuple(self._open)):
            with suppress(OSError):
                inherited.close()

    def _accept(self) -> None:
        while not self.stopping:
            self.handle_request()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; where the process has no descriptor left for it, wait, for it stays in line and would be tried at once."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _NOTHING_LEFT:
                time.sleep(_SECONDS_WITHOUT)
            raise

    def _end(self, threads: Iterable[threading.Thread], seconds: float) -> None:
        """Wait for threads to end, for so long all together."""
        deadline = time.monotonic() + seconds
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def server_bind(self) -> None:
        """Bind without the reverse look-up of the base class, which can hang where there is no name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]  # str for both INET families

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own, or hang up where there are too many."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), name="geluwatch-listener-client", daemon=True
        )
        with self._lock:
            full = len(self._open) >= _MOST_CONNECTIONS
            if not full:
                self._open[request] = thread
        if full:
            self.shutdown_request(request)
        else:
            thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection and close it."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Count what went wrong with a connection, unless the client just hung up; print nothing."""
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, OSError):
            self.on_error(error)


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, str, int]:
    """Return the family, address and port to bind, IPv4 first where a name has both."""
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ListenError(f"port must be a whole number from 0 to 65535, got {port!r}; 0 takes any free one.")
    if not host:  # the system would take it for every address of the machine
        raise ListenError(f"host must be an address or a name, got {host!r}; use 127.0.0.1.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ListenError(f"The host {host!r} cannot be resolved to an address of this machine; use 127.0.0.1.") from error
    family, *_, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    return family, str(address[0]), port


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is taken, maybe by another watch; choose another, or port 0 for any free one."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} needs rights that this process lacks; choose one from 1024 on, or port 0 for any free one."
    return f"Port {port} on {host} cannot be opened ({error.strerror}); use an address of this machine such as 127.0.0.1."


def _url(server: _Server) -> str:
    host, port = str(server.server_address[0]), server.server_port
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified:  # every address of the machine: loopback is the one to show to whoever is on it
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}" if address.version == 6 else f"http://{host}:{port}"


def _hang_up(connection: socket.socket, side: int = socket.SHUT_RDWR) -> None:
    try:
        connection.shutdown(side)
    except OSError:
        return  # the other end was quicker
