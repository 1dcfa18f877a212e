"""The baseline store on a database that SQLAlchemy knows; tested on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from geluwatch.core import provenance
from geluwatch.errors import StoreError
from geluwatch.records import Activation, Baseline
from geluwatch.store import codec
from geluwatch.store.audit import START, Entry, chained
from geluwatch.store.database import Database
from geluwatch.store.governance import GovernedStore
from geluwatch.store.promotion import Policy
from geluwatch.store.rows import to_baseline, to_row, to_site
from geluwatch.store.rules import BaselineInfo, Key, key_of
from geluwatch.store.signing import Keys
from geluwatch.store.tables import AuditRow, BaselineRow, PolicyRow, SiteRow

_OLDEST_FIRST = (BaselineRow.created, BaselineRow.id)
_NEWEST_FIRST = (BaselineRow.created.desc(), BaselineRow.id.desc())
_KEY = (BaselineRow.model, BaselineRow.model_version, BaselineRow.name)

_ENTRY = ("time", "actor", "action", "model", "model_version", "name", "detail", "previous", "digest")

_TRIES = 1000
"""How often an entry is put behind the last one before it is given up: each failure is another process's success."""


class SqlBaselines(Database, GovernedStore):
    """A `geluwatch.ports.BaselineStore` in a database; any thread, and any number of processes, may use it at once.

    Args:
        url: Any SQLAlchemy URL of a synchronous driver, such as "sqlite:///geluwatch.db" or "postgresql://user@host/database";
            "sqlite://" lives in memory until closed. Tables are created or upgraded where they need it.
        keys: As of `StoreBase`.
        actor: As of `StoreBase`.

    Raises:
        StoreError: The database cannot be reached or used, or its schema is newer than this release.
        SignatureError: The environment names a file without such a key.
        ConfigError: The environment names an unusable actor.
    """

    def __init__(self, url: str, keys: Keys | None = None, actor: str | None = None) -> None:
        GovernedStore.__init__(self, keys, actor)
        Database.__init__(self, url)

    @contextmanager
    def _transaction(self, *, writing: bool = False) -> Iterator[_SqlTransaction]:
        with self._session(writing=writing) as session:
            yield _SqlTransaction(session)


class _SqlTransaction:
    """A `geluwatch.store.transaction.Transaction` in a session that its maker begins and ends."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, key: Key) -> Baseline | None:
        row = self._row(key)
        return None if row is None else to_baseline(row)

    def keys(self, model: str | None = None, model_version: str | None = None) -> list[Key]:
        chosen = select(*_KEY).order_by(*_OLDEST_FIRST)
        if model is not None:
            chosen = chosen.where(BaselineRow.model == model)
        if model_version is not None:
            chosen = chosen.where(BaselineRow.model_version == model_version)
        return [Key(*row) for row in self._session.execute(chosen)]

    def infos(self) -> list[BaselineInfo]:
        sites = select(func.count()).where(SiteRow.baseline_id == BaselineRow.id).scalar_subquery()
        windows, armed = BaselineRow.certificate["windows"].as_integer(), BaselineRow.certificate["armed"].as_boolean()
        origin = [BaselineRow.provenance["weights", which, 0].as_string() for which in ("dtypes", "devices")]
        columns = (*_KEY, BaselineRow.created, windows, sites, armed, BaselineRow.traffic, *origin, BaselineRow.signature)
        found = self._session.execute(select(*columns).order_by(*_OLDEST_FIRST))
        return [_info(*row) for row in found]

    def newest_activations(self, model: str) -> tuple[Activation, ...] | None:
        newest = select(BaselineRow.id, BaselineRow.provenance).where(BaselineRow.model == model).order_by(*_NEWEST_FIRST).limit(1)
        found = self._session.execute(newest).one_or_none()
        if found is None:
            return None
        if found.provenance is not None:
            return codec.decode_provenance(found.provenance).activations
        sites = self._session.scalars(select(SiteRow).where(SiteRow.baseline_id == found.id).order_by(SiteRow.ordinal))
        return provenance.activations([to_site(row) for row in sites], {})

    def add(self, baseline: Baseline) -> None:
        self._session.add(to_row(baseline))
        self._session.flush()

    def put_signature(self, baseline: Baseline) -> None:
        row = self._row(key_of(baseline))
        if row is not None and baseline.signature is not None:
            row.signature = codec.encode_signature(baseline.signature)

    def entries(self, model: str | None = None, model_version: str | None = None, actions: Sequence[str] = ()) -> list[Entry]:
        chosen = select(AuditRow).order_by(AuditRow.id)
        if model is not None:
            chosen = chosen.where(AuditRow.model == model)
        if model_version is not None:
            chosen = chosen.where(AuditRow.model_version == model_version)
        if actions:
            chosen = chosen.where(AuditRow.action.in_(actions))
        return [Entry(**{name: getattr(row, name) for name in _ENTRY}) for row in self._session.scalars(chosen)]

    def append(self, entry: Entry) -> None:
        """Add an entry behind the last one; of two processes that see the same one last, the slower looks again.

        Raises:
            StoreError: Others were quicker each time.
        """
        for _ in range(_TRIES):
            last = self._session.scalar(select(AuditRow.digest).order_by(AuditRow.id.desc()).limit(1))
            link = chained(entry, last or START)
            row = AuditRow(**{name: getattr(link, name) for name in _ENTRY})
            try:
                with self._session.begin_nested():
                    self._session.add(row)
            except IntegrityError:
                continue
            return
        raise StoreError(f"The audit log took no entry in {_TRIES} tries, for others write without end; try again.")

    def policy(self, model: str) -> Policy:
        row = self._session.get(PolicyRow, model)
        return Policy() if row is None else Policy(row.approvals, row.stable_seconds / 3600.0)

    def put_policy(self, model: str, policy: Policy) -> None:
        self._session.merge(PolicyRow(model=model, approvals=policy.approvals, stable_seconds=policy.stable_hours * 3600.0))

    def _row(self, key: Key) -> BaselineRow | None:
        return self._session.scalars(select(BaselineRow).where(_is(key))).one_or_none()


def _is(key: Key) -> ColumnElement[bool]:
    return (BaselineRow.model == key.model) & (BaselineRow.model_version == key.model_version) & (BaselineRow.name == key.name)


def _info(*told: Any) -> BaselineInfo:
    *shown, dtype, device, signature = told
    signer = codec.decode_signature(signature).signer if signature else ""
    return replace(BaselineInfo(*shown), dtype=dtype or "", device=device or "", signer=signer)
