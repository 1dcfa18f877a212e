"""Turns what database drivers raise into one sentence for the user, in which no password is ever shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from geluwatch.errors import StoreError

_SQLITE = {
    "SQLITE_CANTOPEN": "cannot be opened; check that the path is a file, in a directory, that this process may read and write",
    "SQLITE_READONLY": "is read-only; make the file and its directory writable",
    "SQLITE_NOTADB": "is not an SQLite database; give the path of another file",
    "SQLITE_CORRUPT": "is damaged; restore it from a copy, or record the baselines again in a new file",
    "SQLITE_BUSY": "is locked by another process that has been writing for too long; try again",
    "SQLITE_FULL": "has no room left; free space on its disk",
}
_SECRET = ("pass", "pwd", "secret", "token", "odbc")
_LONGEST = 300


def shown(url: URL) -> str:
    """Return how to name a database in a sentence: its URL without the password and without settings, which may hold one."""
    return f"The database {url.set(query={}).render_as_string(hide_password=True)}"


@contextmanager
def reported(url: URL) -> Iterator[None]:
    """Raise `StoreError` for whatever SQLAlchemy raises inside.

    The original is not chained: a driver may put the connection's settings into its own message.
    """
    try:
        yield
    except SQLAlchemyError as failure:
        raise StoreError(f"{shown(url)} {_predicate(url, failure)}.") from None


def is_missing_table(failure: SQLAlchemyError) -> bool:
    """Return whether a statement failed for a table that is not there, as SQLite, PostgreSQL's drivers and MySQL's say it."""
    cause = failure.orig if isinstance(failure, DBAPIError) else None
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state == "42P01" or getattr(cause, "args", ())[:1] == (1146,) or "no such table" in str(cause)


def _predicate(url: URL, failure: SQLAlchemyError) -> str:
    cause = failure.orig if isinstance(failure, DBAPIError) and failure.orig else failure
    name = getattr(cause, "sqlite_errorname", "")
    for prefix, predicate in _SQLITE.items():
        if name.startswith(prefix):
            return predicate
    return f"cannot be used ({_detail(url, cause)}); check that the server runs, and the host, the user and the database in the URL"


def _detail(url: URL, cause: BaseException) -> str:
    words = " ".join(str(cause).split())
    if any(secret in words for secret in _secrets(url)):
        return f"{type(cause).__name__}, whose message is not shown since it holds the password"
    short = words if len(words) <= _LONGEST else f"{words[:_LONGEST]} ..."
    return short.rstrip(".") or type(cause).__name__


def _secrets(url: URL) -> Iterator[str]:
    if url.password:
        yield str(url.password)
    for key, values in url.normalized_query.items():
        if any(word in key.lower() for word in _SECRET):
            yield from values
