"""The HTTP listener, spoken to over real sockets."""

from __future__ import annotations

import errno
import gzip
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from geluwatch.errors import ListenError
from geluwatch.export.handler import Handler
from geluwatch.export.listener import Listener
from geluwatch.export.messages import Request, Response, Route, text

LONG = b"all work and no play makes a dull page. " * 100


def echo(request: Request) -> Response:
    """Answer with what was understood."""
    return text(200, f"{request.path} {dict(request.query)} {request.accept}")


def broken(_: Request) -> Response:
    """Fail."""
    raise RuntimeError("secret detail")


ROUTES: dict[str, Route] = {
    "/": lambda _: text(200, "home"),
    "/echo": echo,
    "/a b": echo,
    "/long": lambda _: Response(LONG),
    "/broken": broken,
    "/books/": echo,
}


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A listener that has begun, and is closed at the end."""
    made = Listener(ROUTES)
    made.start()
    yield made
    made.close()


@pytest.fixture
def client(listener: Listener) -> Iterator[http.client.HTTPConnection]:
    """A client of the listener."""
    made = http.client.HTTPConnection(urlsplit(listener.start()).netloc, timeout=5)
    yield made
    made.close()


def ask(
    client: http.client.HTTPConnection, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send one request; underscores in header names stand for hyphens."""
    client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = client.getresponse()
    return answer.status, answer.headers, answer.read()


def address(listener: Listener) -> tuple[str, int]:
    """Host and port of a listener."""
    url = urlsplit(listener.start())
    return str(url.hostname), url.port or 0


def raw(listener: Listener, sent: bytes) -> bytes:
    """Send bytes and return everything that comes back until the listener hangs up."""
    with socket.create_connection(address(listener), timeout=5) as connection:
        connection.sendall(sent)
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except ConnectionResetError:  # it hung up with some of what was sent still unread
            pass
        return received


def client_threads() -> list[str]:
    """Threads of listeners that are still there."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("geluwatch-listener")]


def test_start_returns_the_base_url(listener: Listener) -> None:
    """The URL has no slash at its end, is the same when asked again, and answers."""
    url = listener.start()

    assert url == listener.start()
    assert not url.endswith("/")
    assert b"home\n" == urlopen(f"{url}/", timeout=5).read()


def test_a_route_gets_path_query_and_accept(client: http.client.HTTPConnection) -> None:
    """Percent signs are decoded, the first value of a parameter counts, and the Accept header is passed on."""
    assert b"/echo {'a': '1', 'b': ''} text/html\n" == ask(client, "/echo?a=1&a=2&b=", Accept="text/html")[2]
    assert b"/a b {} None\n" == ask(client, "/a%20b")[2]


def test_a_connection_serves_many_requests(client: http.client.HTTPConnection) -> None:
    """HTTP/1.1 keeps the connection, also after a page that is missing or broken."""
    statuses = [ask(client, path)[0] for path in ("/", "/missing", "/broken", "/long", "/")]

    assert [200, 404, 500, 200, 200] == statuses
    assert ["geluwatch-listener", "geluwatch-listener-client"] == sorted(client_threads())


def test_head_is_get_without_a_body(client: http.client.HTTPConnection) -> None:
    """HEAD has the very headers of GET, the length included."""
    status, headers, body = ask(client, "/long", "HEAD")
    expected = ask(client, "/long")[1]

    assert (200, b"") == (status, body)
    assert {**dict(expected), "Date": ""} == {**dict(headers), "Date": ""}
    assert str(len(LONG)) == headers["Content-Length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_refused(client: http.client.HTTPConnection, method: str) -> None:
    """Anything but GET and HEAD is a 405 that names both, and ends the connection."""
    status, headers, body = ask(client, "/", method, b"x=1")

    assert (405, "GET, HEAD", "close") == (status, headers["Allow"], headers["Connection"])
    assert b"Only GET and HEAD are answered here.\n" == body


def test_what_follows_a_body_is_never_taken_for_a_request(listener: Listener) -> None:
    """A GET with a body is answered once and the connection ends, so nothing can be smuggled in behind it."""
    smuggled = b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(smuggled)

    assert 1 == raw(listener, head + smuggled).count(b"HTTP/1.1 ")


def test_a_missing_page_lists_those_that_exist(client: http.client.HTTPConnection) -> None:
    """The 404 is short plain text with every path."""
    status, headers, body = ask(client, "/nowhere")

    assert (404, "text/plain; charset=utf-8") == (status, headers["Content-Type"])
    assert sorted(ROUTES) == body.decode().splitlines()[1:]


@pytest.mark.parametrize(("path", "location"), [("/books", "/books/"), ("/echo/", "/echo"), ("/a%20b/", "/a%20b")])
def test_a_slash_too_many_or_too_few_is_mended(client: http.client.HTTPConnection, path: str, location: str) -> None:
    """A path that exists but for its last slash redirects there."""
    status, headers, _ = ask(client, path)

    assert (308, location) == (status, headers["Location"])


def test_a_broken_page_is_told_and_nothing_leaks() -> None:
    """An exception becomes a 500 without its message, reaches `on_error`, and the next request is answered."""
    errors: list[Exception] = []
    listener = Listener(ROUTES, on_error=errors.append)
    client = http.client.HTTPConnection(urlsplit(listener.start()).netloc, timeout=5)
    try:
        status, _, body = ask(client, "/broken")
        assert (500, False) == (status, b"secret" in body)
        assert ["secret detail"] == [str(error) for error in errors]
        assert 200 == ask(client, "/")[0]
    finally:
        client.close()
        listener.close()


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [("gzip", True), ("br, gzip;q=0.5", True), ("*", True), ("gzip; q=1", True), ("gzip;q=0", False), ("br", False), ("gzip;q=0.0", False)],
)
def test_a_long_body_is_compressed_for_who_accepts_it(client: http.client.HTTPConnection, accepted: str, compressed: bool) -> None:
    """The coding follows Accept-Encoding, a weight of 0 included, and decodes to the same bytes."""
    _, headers, body = ask(client, "/long", Accept_Encoding=accepted)

    assert ("gzip" if compressed else None) == headers["Content-Encoding"]
    assert LONG == (gzip.decompress(body) if compressed else body)
    assert str(len(body)) == headers["Content-Length"]


def test_a_short_body_is_not_compressed(client: http.client.HTTPConnection) -> None:
    """Below a kilobyte there is nothing to gain."""
    assert None is ask(client, "/", Accept_Encoding="gzip")[1]["Content-Encoding"]


@pytest.mark.parametrize("path", ["/", "/missing", "/broken", "/books"])
def test_every_answer_carries_the_security_headers(client: http.client.HTTPConnection, path: str) -> None:
    """No sniffing, no framing, nothing from elsewhere, no copies kept, no version of Python told."""
    headers = ask(client, path)[1]

    assert "nosniff" == headers["X-Content-Type-Options"]
    assert "DENY" == headers["X-Frame-Options"]
    assert "no-store" == headers["Cache-Control"]
    assert "geluwatch" == headers["Server"]
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert ("'none'", "'self'", "'none'") == (policy["default-src"], policy["script-src"], policy["frame-ancestors"])


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1", "127.0.0.1:65535", "[::1]", "[::1]:80"])
def test_names_of_this_machine_are_served(client: http.client.HTTPConnection, host: str) -> None:
    """The Host header may name loopback in any of its forms, with any port, as behind a forwarded one."""
    assert 200 == ask(client, "/", Host=host)[0]


@pytest.mark.parametrize("host", ["example.org", "localhost.example.org", "127.0.0.1.example.org:80", "10.0.0.1", "[::2]", "[", ""])
def test_other_names_are_refused_on_loopback(client: http.client.HTTPConnection, host: str) -> None:
    """A page elsewhere that points its own name at loopback reads nothing."""
    status, _, body = ask(client, "/long", Host=host)

    assert (403, False) == (status, LONG in body)


def test_any_name_is_served_where_others_may_connect() -> None:
    """On an address opened to other machines their name for this one is not ours to judge."""
    listener = Listener(ROUTES, host="0.0.0.0", allow_remote=True)  # noqa: S104 - the point of the test
    url = listener.start()
    client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        assert url.startswith("http://127.0.0.1:")
        assert 200 == ask(client, "/", Host="models.example.org")[0]
    finally:
        client.close()
        listener.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"414"),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"414"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01 \xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", b"505"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"431"),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET /?" + b"a=1&" * 30 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"400"),
    ],
)
def test_nonsense_is_refused_in_one_line(listener: Listener, sent: bytes, status: bytes) -> None:
    """What is overlong or no HTTP gets a short plain answer and the end of the connection."""
    received = raw(listener, sent + b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

    assert b"HTTP/1.1 " + status == received[:12]
    assert b"Traceback" not in received


def test_a_request_without_a_host_is_served(listener: Listener) -> None:
    """HTTP/1.0 has no Host header; no web page can make a browser leave it out."""
    assert raw(listener, b"GET / HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nhome\n")


def test_a_client_that_says_nothing_is_cut_off(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the timeout the listener hangs up and the thread ends."""
    monkeypatch.setattr(Handler, "timeout", 0.2)

    assert b"" == raw(listener, b"GET / HT")


def test_a_client_that_dribbles_is_cut_off(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for the whole head: a byte now and then, of the first line or of a header, does not prolong it."""
    monkeypatch.setattr(Handler, "timeout", 0.4)
    for sent in (b"G", b"GET / HTTP/1.1\r\nA"):
        with socket.create_connection(address(listener), timeout=5) as connection:
            connection.sendall(sent)
            with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012
                for _ in range(50):
                    time.sleep(0.1)
                    connection.sendall(b"a")
    assert raw(listener, b"GET / HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nhome\n")


def test_a_slow_page_is_served_whole(client: http.client.HTTPConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page takes to make is no part of the time for a head, of its request or of the next."""
    monkeypatch.setattr(Handler, "timeout", 0.3)
    monkeypatch.setitem(ROUTES, "/echo", lambda _: time.sleep(0.5) or text(200, "slow"))
    assert [b"slow\n", b"home\n"] == [ask(client, path)[2] for path in ("/echo", "/")]


_FORKED = """
import os, signal, sys, time, urllib.request
from geluwatch.config import Config
from geluwatch.records import Site
from geluwatch.testing import FakeClock, ListSource, MemoryBaselines
from geluwatch.watch import Watch

source = ListSource((Site("act", 0, "module", "GELU", "erf"),))
watch = Watch(source, MemoryBaselines(), FakeClock(), Config(), name="m", version="1", labels={})
watch.start()
url = watch.serve()
child = os.fork()
if not child:
    os.close(1)
    time.sleep(60)
    os._exit(0)
assert urllib.request.urlopen(url + "/metrics", timeout=5).status == 200  # the child has let go, and it is served all the same
print(child, url, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_keep_its_parents_port() -> None:
    """Once a killed parent is gone its port is free, though a child of it lives on."""
    done = subprocess.run([sys.executable, "-c", _FORKED], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    child, url = done.stdout.split()
    again = Listener(ROUTES, port=urlsplit(url).port or 0)
    try:
        assert url == again.start()
    finally:
        again.close()
        os.kill(int(child), signal.SIGKILL)


def test_connections_are_bounded(listener: Listener) -> None:
    """The sixty-fifth connection at once is closed unanswered; when others end, new ones are answered again."""
    held = [socket.create_connection(address(listener), timeout=5) for _ in range(64)]
    try:
        _until(lambda: client_threads().count("geluwatch-listener-client") == 64)
        assert b"" == raw(listener, b"GET / HTTP/1.0\r\n\r\n")
    finally:
        for connection in held:
            connection.close()
    _until(lambda: client_threads() == ["geluwatch-listener"])

    assert raw(listener, b"GET / HTTP/1.0\r\n\r\n").endswith(b"home\n")


def test_close_frees_the_port_and_leaves_no_thread() -> None:
    """After close, which may be called twice, open connections are dead, threads gone and the port free."""
    listener = Listener(ROUTES)
    host, port = address(listener)
    client = http.client.HTTPConnection(host, port, timeout=5)
    assert 200 == ask(client, "/")[0]

    listener.close()
    listener.close()

    assert [] == client_threads()
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        ask(client, "/")
    client.close()
    again = Listener(ROUTES, port=port)
    assert (host, port) == address(again)
    again.close()


def test_an_answer_that_has_begun_is_finished_on_close() -> None:
    """A client that has been sent the head gets the whole body, however long it is, although the listener is closed meanwhile."""
    long = LONG * 2000
    listener = Listener({"/": lambda _: Response(long)})
    client = http.client.HTTPConnection(*address(listener), timeout=5)
    client.request("GET", "/")
    answer = client.getresponse()
    closing = threading.Thread(target=listener.close)
    closing.start()
    try:
        assert long == answer.read()
    finally:
        client.close()
        closing.join(5)
    assert [] == client_threads()


def test_a_request_that_has_come_is_answered_on_close_and_is_the_last() -> None:
    """What is being worked on is answered, with the end of the connection announced; what follows on it is not."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: Request) -> Response:
        begun.set()
        assert go_on.wait(5)
        return text(200, "done")

    listener = Listener({"/": slow})
    answered: list[bytes] = []
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    asking = threading.Thread(target=lambda: answered.append(raw(listener, 2 * request)))
    listener.start()
    asking.start()
    assert begun.wait(5)
    closing = threading.Thread(target=listener.close)
    closing.start()
    _until(lambda: "geluwatch-listener" not in client_threads())
    go_on.set()
    for thread in (asking, closing):
        thread.join(5)
    head, _, body = answered[0].partition(b"\r\n\r\n")
    assert (b"HTTP/1.1 200 OK", True, b"done\n") == (head.splitlines()[0], b"Connection: close" in head, body)


def test_a_client_that_does_not_read_is_left_behind_on_close() -> None:
    """Closing waits about a second for such a client, not for ever, and for many no longer than for one."""
    listener = Listener({"/": lambda _: Response(LONG * 20_000)})
    held = [socket.create_connection(address(listener), timeout=5) for _ in range(8)]
    for connection in held:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert all(connection.recv(1) for connection in held)
    began = time.monotonic()
    listener.close()
    assert time.monotonic() - began < 5
    assert [] == client_threads()
    for connection in held:
        connection.close()


def test_head_and_body_leave_together(listener: Listener) -> None:
    """A short answer comes in one piece, so that none can see a head without its body."""
    with socket.create_connection(address(listener), timeout=5) as connection:
        for _ in range(50):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65536).endswith(b"\r\n\r\nhome\n")


def test_closing_what_never_started_does_nothing() -> None:
    """A listener that was only made holds nothing."""
    Listener(ROUTES).close()


def test_a_taken_port_is_said_so(listener: Listener) -> None:
    """The error names the port and what to do."""
    _, port = address(listener)

    with pytest.raises(
        ListenError,
        match=f"^Port {port} on 127.0.0.1 is taken, maybe by another watch; choose another, or port 0 ",
    ):
        Listener(ROUTES, port=port).start()


@pytest.mark.parametrize("port", [-1, 65536, 1.5, "80", True, None])
def test_a_bad_port_is_refused(port: object) -> None:
    """A port is a whole number that fits 16 bits."""
    with pytest.raises(ListenError, match=r"^port must be a whole number from 0 to 65535, got "):
        Listener(ROUTES, port=port)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["", "no.such.host.invalid", "x" * 70, "127.0.0.1:80", "256.0.0.1"])
def test_a_bad_host_is_refused(host: str) -> None:
    """A host that names no address is refused with a hint, not with the resolver's error."""
    with pytest.raises(ListenError, match=r"use 127\.0\.0\.1\.$"):
        Listener(ROUTES, host=host)


def test_an_address_of_another_machine_is_refused() -> None:
    """An address that is not this machine's cannot be opened, and the message says so."""
    with pytest.raises(ListenError, match=r"^Port 0 on 192\.0\.2\.1 cannot be opened \(.+\); use an address of this machine"):
        Listener(ROUTES, host="192.0.2.1", allow_remote=True).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104 - the point of the test
def test_only_loopback_is_opened_unasked(host: str) -> None:
    """Any other address needs `allow_remote`, and the message says what would be shown."""
    with pytest.raises(ListenError, match=r"have no password.*allow_remote=True"):
        Listener(ROUTES, host=host)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def test_without_descriptors_left_the_listener_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a connection cannot be accepted for want of descriptors it stays in line; trying without a pause would take a whole core."""
    tried: list[float] = []

    def accept(_: object) -> None:
        tried.append(time.monotonic())
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("socketserver.TCPServer.get_request", accept)
    made = Listener(ROUTES)
    with socket.create_connection(urlsplit(made.start()).netloc.split(":")):
        time.sleep(1.2)
    made.close()
    assert 1 <= len(tried) <= 5
