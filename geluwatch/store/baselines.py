"""The baseline store on a database that SQLAlchemy knows; tested on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from geluwatch.errors import StoreError
from geluwatch.records import Baseline, Site, Window
from geluwatch.store import codec
from geluwatch.store.engine import for_writing, make_engine
from geluwatch.store.failures import reported, shown
from geluwatch.store.rules import LATEST, BaselineInfo, check, taken, unknown
from geluwatch.store.schema import prepare
from geluwatch.store.tables import BaselineRow, SiteRow, WindowRow

_Part = TypeVar("_Part")

_OLDEST_FIRST = (BaselineRow.created, BaselineRow.id)
_NEWEST_FIRST = (BaselineRow.created.desc(), BaselineRow.id.desc())


class SqlBaselines:
    """A `geluwatch.ports.BaselineStore` in a database; any thread, and any number of processes, may use it at once.

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

    def save(self, baseline: Baseline) -> None:
        """Store a baseline, all of it or nothing.

        Raises:
            BaselineError: The name is taken for this model and version, or is no usable name.
            StoreError: The database cannot be used.
        """
        check(baseline)
        row = _to_row(baseline)
        try:
            with self._session(writing=True) as session:
                session.add(row)
        except StoreError:
            if baseline.name in self.names(baseline.model, baseline.model_version):
                raise taken(baseline) from None
            raise

    def load(self, model: str, model_version: str, name: str) -> Baseline:
        """Return a stored baseline; the name "latest" means the newest.

        Raises:
            UnknownBaselineError: There is none; the message lists the names there are.
            StoreError: The database cannot be used, or what it holds is damaged.
        """
        named = _of(model, model_version)
        if name != LATEST:
            named &= BaselineRow.name == name
        with self._session() as session:
            row = session.scalars(select(BaselineRow).where(named).order_by(*_NEWEST_FIRST).limit(1)).one_or_none()
            if row is None:
                keys = select(BaselineRow.model, BaselineRow.model_version, BaselineRow.name).order_by(*_OLDEST_FIRST)
                raise unknown(model, model_version, name, [(key[0], key[1], key[2]) for key in session.execute(keys)])
            return _to_baseline(row)

    def names(self, model: str, model_version: str) -> tuple[str, ...]:
        """Names stored for a model version, oldest first.

        Raises:
            StoreError: The database cannot be used.
        """
        with self._session() as session:
            return tuple(session.scalars(select(BaselineRow.name).where(_of(model, model_version)).order_by(*_OLDEST_FIRST)))

    def listing(self) -> tuple[BaselineInfo, ...]:
        """Everything stored, by model and version, oldest first within each.

        Raises:
            StoreError: The database cannot be used.
        """
        sites = select(func.count()).where(SiteRow.baseline_id == BaselineRow.id).scalar_subquery()
        windows, armed = BaselineRow.certificate["windows"].as_integer(), BaselineRow.certificate["armed"].as_boolean()
        key = (BaselineRow.model, BaselineRow.model_version, BaselineRow.name)
        with self._session() as session:
            rows = session.execute(select(*key, BaselineRow.created, windows, sites, armed).order_by(*_OLDEST_FIRST))
            # Sorted here, since each database orders text by its own collation.
            return tuple(sorted((BaselineInfo(*row) for row in rows), key=lambda info: (info.model, info.model_version)))

    def close(self) -> None:
        """Release connections; calling it again does nothing, anything else raises `StoreError` from then on."""
        self._closed = True
        self._engine.dispose()

    @contextmanager
    def _session(self, *, writing: bool = False) -> Iterator[Session]:
        if self._closed:
            raise StoreError(f"{shown(self._engine.url)} has been closed by this process; open it again.")
        with reported(self._engine.url), Session(for_writing(self._engine) if writing else self._engine) as session, session.begin():
            yield session


def _of(model: str, model_version: str) -> ColumnElement[bool]:
    return (BaselineRow.model == model) & (BaselineRow.model_version == model_version)


def _to_row(baseline: Baseline) -> BaselineRow:
    return BaselineRow(
        model=baseline.model,
        model_version=baseline.model_version,
        name=baseline.name,
        created=float(baseline.created),
        certificate=codec.encode_certificate(baseline.certificate),
        reference_payload=codec.encode_references(baseline.references),
        histogram_payload=codec.encode_histograms(baseline.histograms),
        calm_payload=codec.encode_calm(baseline.calm) if baseline.calm else None,
        probe_payload=codec.encode_probe(baseline.probe) if baseline.probe else None,
        sites=[_to_site_row(ordinal, site) for ordinal, site in enumerate(baseline.sites)],
        windows=[_to_window_row(position, window) for position, window in enumerate(baseline.windows)],
    )


def _to_site_row(ordinal: int, site: Site) -> SiteRow:
    return SiteRow(
        ordinal=ordinal,
        position=site.position,
        layer=site.layer,
        form=site.form,
        kind=site.kind,
        variant=site.variant,
        state=site.state,
        reason=site.reason,
    )


def _to_window_row(position: int, window: Window) -> WindowRow:
    return WindowRow(
        position=position,
        # Drivers do not know numpy's scalars; SQLite would store them as bytes.
        started=float(window.started),
        ended=float(window.ended),
        forwards=int(window.forwards),
        sampled_forwards=int(window.sampled_forwards),
        thinned=bool(window.thinned),
        payload=codec.encode_window(window),
    )


def _to_baseline(row: BaselineRow) -> Baseline:
    name = f'baseline "{row.name}" of model "{row.model}" version "{row.model_version}"'
    return Baseline(
        model=row.model,
        model_version=row.model_version,
        name=row.name,
        created=row.created,
        sites=tuple(_to_site(site) for site in row.sites),
        windows=tuple(codec.decode_window(window.payload, f"Window {window.position} of {name}") for window in row.windows),
        certificate=codec.decode_certificate(row.certificate, f"The certificate of {name}"),
        references=_decoded(codec.decode_references, row.reference_payload, f"The references of {name}") or {},
        histograms=_decoded(codec.decode_histograms, row.histogram_payload, f"The pooled histograms of {name}") or {},
        calm=_decoded(codec.decode_calm, row.calm_payload, f"The calm scores of {name}"),
        probe=_decoded(codec.decode_probe, row.probe_payload, f"The probe of {name}"),
    )


def _decoded(decode: Callable[[bytes, str], _Part], payload: bytes | None, name: str) -> _Part | None:
    return None if payload is None else decode(payload, name)


def _to_site(row: SiteRow) -> Site:
    return Site(row.layer, row.position, row.form, row.kind, row.variant, row.state, row.reason)
