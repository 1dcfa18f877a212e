"""The history in a database that SQLAlchemy knows, beside the baselines; tested on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from sqlalchemy import BigInteger, Cast, ColumnElement, cast, delete, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from geluwatch.core.history import merge
from geluwatch.core.thinning import Kept, Step, next_step
from geluwatch.errors import DamagedError, StoreError
from geluwatch.records import Span
from geluwatch.retention import Retention
from geluwatch.store import codec
from geluwatch.store.database import Database, TablesMadeError
from geluwatch.store.rules import KEY_LENGTH, LENGTHS, OTHERS, HistoryInfo, in_order, reaching, whole
from geluwatch.store.tables import HistoryRow


class SqlHistory(Database):
    """A `geluwatch.ports.HistoryStore` in a database; any thread, and any number of processes, may use it at once.

    Args and errors are those of `geluwatch.store.SqlBaselines`.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._damaged: set[int] = set()

    def append(self, span: Span) -> None:
        """Keep a span; one that is there already, of the same source and moment, is not kept twice.

        Raises:
            StoreError: The database cannot be used.
        """
        try:
            self._append(span)
        except TablesMadeError:
            self._append(span)

    def _append(self, span: Span) -> None:
        row = _to_row(span)
        there = _of(span.model, span.model_version) & (HistoryRow.ended == row.ended)
        there &= (HistoryRow.source == row.source) & (HistoryRow.resolution == row.resolution)
        with self._session(writing=True) as session:
            # A connection may be lost between the commit and the news of it; then the writer tries again.
            if session.scalar(select(HistoryRow.id).where(there).limit(1)) is None:
                session.add(row)

    def spans(self, model: str, model_version: str | None, since: float, until: float) -> Iterator[Span]:
        """Yield what is kept of a model's windows that ended after `since` and by `until`, one span at a time.

        All ages go by the end, for a window may begin before its process was told the time; an hour or a day is of the period that its
        last window ended in. They are of one moment, that of the first query, whoever thins meanwhile. A database in memory, which has
        one connection, serves nobody else until the last is taken.

        Args:
            model: The model.
            model_version: Its version; None for all of them.
            since: Seconds since the epoch.
            until: Seconds since the epoch.

        Raises:
            DamagedError: Spans cannot be read; raised behind the last of the others.
            StoreError: The database cannot be used.
        """
        damaged: list[StoreError] = []
        within = _of(model, model_version) & (HistoryRow.ended > since) & (HistoryRow.ended <= until)
        with self._snapshot() as session:
            ids = session.scalars(select(HistoryRow.id).where(within).order_by(HistoryRow.ended, HistoryRow.id)).all()
            for number in ids:
                span = _read(session, number)
                if isinstance(span, Span):
                    yield span
                else:
                    damaged.append(span)
        if damaged:
            more = f" Of {len(damaged) - 1} more the same is true." if damaged[1:] else ""
            raise DamagedError(f"{damaged[0]}{more}")

    def widened(self, model: str, model_version: str | None, since: float, until: float) -> tuple[float, float]:
        """Return a period widened to whole hours and days where it touches such as are kept merged.

        Raises:
            StoreError: The database cannot be used.
        """
        period = since, until
        with self._session() as session:
            for resolution, length in LENGTHS:
                first, last = whole(since, until, length)
                touched = _of(model, model_version) & (HistoryRow.resolution == resolution)
                touched &= (HistoryRow.ended > first) & (HistoryRow.ended <= last)
                ends = session.execute(select(func.min(HistoryRow.ended), func.max(HistoryRow.ended)).where(touched)).one()
                period = reaching(period, [end for end in ends if end is not None], length)
        return period

    def thin(self, model: str, retention: Retention, now: float) -> bool:
        """Do the next piece of what age and size demand, in one transaction; return whether there may be more.

        Raises:
            StoreError: The database cannot be used, or a span is damaged; that one is left as it is from then on.
        """
        with self._session(writing=True) as session:
            step = next_step(self._kept(session, model), retention, now)
            if step is not None and _locked(session, step.ids):
                self._do(session, step)
        return step is not None

    def others(self, model: str, source: str) -> Sequence[float]:
        """Return the ends, in seconds since the epoch, of the single windows that processes other than `source` kept last.

        The last of them comes first.

        Raises:
            StoreError: The database cannot be used.
        """
        single = _of(model, None) & (HistoryRow.resolution == "raw") & (HistoryRow.source != source[:KEY_LENGTH])
        with self._session() as session:
            return session.scalars(select(HistoryRow.ended).where(single).order_by(HistoryRow.id.desc()).limit(OTHERS)).all()

    def size(self, model: str) -> int:
        """Return the bytes that all versions of a model take.

        Raises:
            StoreError: The database cannot be used.
        """
        with self._session() as session:
            return session.scalar(select(_sum(HistoryRow.size)).where(_of(model, None))) or 0

    def listing(self) -> tuple[HistoryInfo, ...]:
        """Return what is kept by model, version and resolution, in this order.

        Raises:
            StoreError: The database cannot be used.
        """
        key = (HistoryRow.model, HistoryRow.model_version, HistoryRow.resolution)
        times = (func.min(HistoryRow.started), func.max(HistoryRow.ended))
        shown = select(*key, func.count(), _sum(HistoryRow.windows), _sum(HistoryRow.size), *times).group_by(*key)
        with self._session() as session:
            return in_order(HistoryInfo(*row) for row in session.execute(shown))

    def forget(self, model: str, before: float, model_version: str | None = None) -> int:
        """Drop the spans of a model that had ended by a moment; return how many they were.

        Raises:
            StoreError: The database cannot be used.
        """
        ended = _of(model, model_version) & (HistoryRow.ended <= before)
        with self._session(writing=True) as session:
            ids = session.scalars(select(HistoryRow.id).where(ended).order_by(HistoryRow.id).with_for_update()).all()
            _drop(session, ids)
        return len(ids)

    def _kept(self, session: Session, model: str) -> list[Kept]:
        columns = (HistoryRow.id, HistoryRow.model_version, HistoryRow.resolution, HistoryRow.ended, HistoryRow.size)
        rows = session.execute(select(*columns).where(_of(model, None)))
        return [Kept(*row, readable=row[0] not in self._damaged) for row in rows]

    def _do(self, session: Session, step: Step) -> None:
        if step.into is not None:
            session.add(_to_row(merge(self._readable(session, step.ids), step.into)))
        _drop(session, step.ids)

    def _readable(self, session: Session, ids: Sequence[int]) -> Iterator[Span]:
        """Yield spans; the first that cannot be read fails the whole step, and is kept out of the next."""
        for number in ids:
            span = _read(session, number)
            if isinstance(span, StoreError):
                self._damaged.add(number)
                raise span
            yield span


def _of(model: str, model_version: str | None) -> ColumnElement[bool]:
    named = HistoryRow.model == model
    return named if model_version is None else named & (HistoryRow.model_version == model_version)


def _sum(column: InstrumentedAttribute[int]) -> Cast[int]:
    return cast(func.sum(column), BigInteger)  # PostgreSQL's sums are decimal numbers


def _locked(session: Session, ids: Sequence[int]) -> bool:
    """Lock rows, in an order that all processes keep, and return whether all are still there: who comes second finds them gone.

    SQLite's writing transactions have the database to themselves, and it is left out there.
    """
    found = session.scalars(select(HistoryRow.id).where(HistoryRow.id.in_(ids)).order_by(HistoryRow.id).with_for_update())
    return len(found.all()) == len(ids)


def _drop(session: Session, ids: Sequence[int]) -> None:
    for start in range(0, len(ids), 500):  # no database takes any number of parameters
        session.execute(delete(HistoryRow).where(HistoryRow.id.in_(ids[start : start + 500])))


def _read(session: Session, number: int) -> Span | StoreError:
    """Return a span, or what is wrong with it."""
    try:
        return _to_span(session.scalars(select(HistoryRow).where(HistoryRow.id == number)).one())
    except StoreError as failure:
        return failure
    except ValueError as failure:  # of the driver, which reads JSON
        return StoreError(f"Span {number} of the history cannot be read, its summary is no JSON ({failure}); {codec.ADVICE}.")


def _to_span(row: HistoryRow) -> Span:
    name = f'The {row.resolution} history of model "{row.model}" that ended at {row.ended:.0f}'
    window, summary = codec.decode_span(row.payload, name), codec.decode_summary(row.summary, name)
    return Span(row.model, row.model_version, row.resolution, row.source, row.windows, window, summary)


def _to_row(span: Span) -> HistoryRow:
    payload, summary = codec.encode_span(span.window), codec.encode_summary(span.summary)
    return HistoryRow(
        model=span.model,
        model_version=span.model_version,
        resolution=span.resolution,
        source=span.source[:KEY_LENGTH],
        # Drivers do not know numpy's scalars; SQLite would store them as bytes.
        started=float(span.window.started),
        ended=float(span.window.ended),
        windows=int(span.windows),
        size=len(payload) + len(json.dumps(summary)),
        summary=summary,
        payload=payload,
    )
