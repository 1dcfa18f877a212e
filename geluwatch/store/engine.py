"""Makes the database engine for a URL, with the pool, time-outs and SQLite settings that a baseline store needs."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from geluwatch.errors import StoreError
from geluwatch.store.failures import shown

#: Seconds to wait for a server to answer, or for another process to finish writing to an SQLite file.
PATIENCE = 10

# SQLAlchemy 2.0 and 2.1 differ in the driver that a bare "postgresql" means.
_POSTGRESQL = "postgresql+psycopg"
_DRIVERS = {"postgresql": _POSTGRESQL, "postgres": _POSTGRESQL}

_EXAMPLES = 'for example "sqlite:///geluwatch.db" or "postgresql://user@host/database"'
_WRITING = "geluwatch_writing"


def make_engine(address: str) -> Engine:
    """Return an engine for an SQLAlchemy URL; connects to nothing yet.

    Connections to files and servers are opened for each operation and closed after it: a store is used a few times in the
    life of a process, so an idle connection from every pod would be waste, and none is ever shared across a fork.

    Raises:
        StoreError: The URL is unusable, its driver is missing, or the directory of its file does not exist.
    """
    url = _parse(address)
    _check_directory(url)
    try:
        engine = create_engine(url, **_options(url))
    except NoSuchModuleError:
        raise StoreError(f"{shown(url)} is of a kind that SQLAlchemy does not know, {url.drivername!r}; name one, {_EXAMPLES}.") from None
    except ImportError as failure:
        package = "psycopg[binary]" if url.drivername == _POSTGRESQL else "the driver's package"
        raise StoreError(f"{shown(url)} needs a driver, {failure.name or url.drivername!r}, that is missing; install {package}.") from None
    except (SQLAlchemyError, TypeError, ValueError):
        raise _refused(url) from None
    if engine.dialect.is_async:
        raise StoreError(f"{shown(url)} names an asynchronous driver, {url.drivername!r}; name a synchronous one, {_EXAMPLES}.")
    _listen(engine)
    return engine


def for_writing(engine: Engine) -> Engine:
    """Return the engine for transactions that write.

    These take SQLite's write lock at once, so none is refused it half-way. Elsewhere each query of theirs sees what others have
    committed by then, whatever isolation the server sets: who waited, or was too slow, has to see what came before it.
    """
    level = {} if engine.dialect.name == "sqlite" else {"isolation_level": "READ COMMITTED"}
    return engine.execution_options(**{_WRITING: True}, **level)


def for_reading_at_length(engine: Engine) -> Engine:
    """Return the engine for transactions of several queries that have to see one state; SQLite's all do."""
    return engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="REPEATABLE READ")


def is_lasting(address: str) -> bool:
    """Return whether the database of a URL outlives the process, as one in memory does not.

    Raises:
        StoreError: The URL is unusable.
    """
    return not _in_memory(_parse(address))


def refuse_missing(address: str) -> None:
    """Refuse the URL of a file that does not exist, which opening would make: whoever reads has mistyped it.

    Raises:
        StoreError: The URL is unusable, or there is no such file.
    """
    url = _parse(address)
    if is_lasting(address) and url.get_backend_name() == "sqlite" and not url.query and not Path(url.database or "").is_file():
        raise StoreError(f"{shown(url)} does not exist; correct the path, or let a watch make it.")


def _parse(address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        harmless = not any(word in str(address).lower() for word in ("@", "pass", "pwd"))
        value = repr(address) if harmless else "The value given (not shown, it may hold a password)"
        raise StoreError(f"{value} is not a database URL; give one, {_EXAMPLES}.") from None
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def _in_memory(url: URL) -> bool:
    database = url.database or ":memory:"
    return url.get_backend_name() == "sqlite" and (":memory:" in database or url.query.get("mode") == "memory")


def _check_directory(url: URL) -> None:
    if url.get_backend_name() != "sqlite" or _in_memory(url) or "uri" in url.query:
        return
    directory = Path(url.database or "").parent
    # An OSError means that even looking is not allowed; SQLite then says the same of the file.
    with suppress(OSError):
        if not directory.is_dir():
            raise StoreError(f"{shown(url)} lies in a directory that does not exist, {str(directory)!r}; create it or correct the path.")


def _options(url: URL) -> dict[str, Any]:
    if _in_memory(url):
        # One connection for all threads, each waiting for its turn; StaticPool would mix their transactions.
        one = {"pool_size": 1, "max_overflow": 0, "connect_args": {"check_same_thread": False}}
        return {"poolclass": QueuePool, **one}
    timeouts = {"sqlite": "timeout", "psycopg": "connect_timeout", "psycopg2": "connect_timeout"}
    name = timeouts.get(url.get_driver_name()) or timeouts.get(url.get_backend_name())
    given = name is None or name in url.query
    return {"poolclass": NullPool, "connect_args": {} if given else {name: PATIENCE}}


def _listen(engine: Engine) -> None:
    def connect(dialect: Dialect, _entry: ConnectionPoolEntry, arguments: list[Any], settings: dict[str, Any]) -> DBAPIConnection:
        try:
            return dialect.connect(*arguments, **settings)
        except (TypeError, ValueError):
            raise _refused(engine.url) from None

    event.listen(engine, "do_connect", connect)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)


def _set_up_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # Every transaction is begun by _begin_sqlite; the driver is to begin none of its own.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    # Readers then do not wait for writers. A file that is read-only or busy at this moment stays as it is, which is slower
    # but no less safe; one that is no database is refused by the first query.
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get(_WRITING)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _refused(url: URL) -> StoreError:
    return StoreError(f"{shown(url)} is given with settings after the question mark that its driver refuses; correct the URL.")
