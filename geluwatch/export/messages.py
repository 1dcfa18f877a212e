"""What a route of the listener takes and gives: a small request, a small response, no server in sight."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """What a route may know of a request."""

    path: str
    """The path, percent signs decoded, without the query."""
    query: Mapping[str, str] = field(default_factory=dict)
    """The first value of each parameter."""
    accept: str | None = None
    """The Accept header, if the client sent one."""


@dataclass(frozen=True)  # no slots: the compressed body is kept beside the fields
class Response:
    """A whole answer; one that a route keeps is compressed only once."""

    body: bytes
    content_type: str = PLAIN
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def compressed(self) -> bytes:
        """The body in gzip, the same bytes every time."""
        return gzip.compress(self.body, compresslevel=6, mtime=0)


Route = Callable[[Request], Response]


def text(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a plain answer of one line or a few."""
    return Response(f"{message}\n".encode(), PLAIN, status, headers or {})
