"""What every store in a database is made of: an engine, tables of this release, and transactions that fail in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from geluwatch.errors import StoreError
from geluwatch.store.engine import for_reading_at_length, for_writing, make_engine
from geluwatch.store.failures import is_missing_table, reported, shown
from geluwatch.store.schema import prepare


class TablesMadeError(StoreError):
    """A transaction found no tables, for the database was replaced since it was opened; they are there now."""


class Database:
    """A database; any thread, and any number of processes, may use it at once.

    Args:
        url: Any SQLAlchemy URL of a synchronous driver, such as "sqlite:///geluwatch.db" or "postgresql://user@host/database";
            "sqlite://" lives in memory until closed. Tables are created or upgraded where they need it.

    Raises:
        StoreError: The database cannot be reached or used, or its schema is newer than this release.
    """

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)
        self._closed = False
        with reported(self._engine.url):
            prepare(self._engine)

    def close(self) -> None:
        """Release connections; calling it again does nothing, anything else raises `StoreError` from then on."""
        self._closed = True
        self._engine.dispose()

    @contextmanager
    def _session(self, *, writing: bool = False) -> Iterator[Session]:
        with self._begun(Session(for_writing(self._engine) if writing else self._engine)) as session:
            yield session

    @contextmanager
    def _snapshot(self) -> Iterator[Session]:
        """Give a transaction that sees the database as it is at its first query, whatever is written meanwhile."""
        with self._begun(Session(for_reading_at_length(self._engine))) as session:
            yield session

    @contextmanager
    def _begun(self, opened: Session) -> Iterator[Session]:
        if self._closed:
            raise StoreError(f"{shown(self._engine.url)} has been closed by this process; open it again.")
        try:
            with opened as session, session.begin():
                yield session
        except SQLAlchemyError as failure:
            with reported(self._engine.url):
                if not is_missing_table(failure) or not prepare(self._engine):
                    raise
            raise TablesMadeError(f"{shown(self._engine.url)} had lost its tables, which have been made anew; try again.") from None
