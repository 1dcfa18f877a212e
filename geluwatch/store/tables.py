"""The tables, as SQLAlchemy 2 declarative classes: baselines with their sites and windows, the audit log, policies, the history.

Every table carries the product's prefix, because the database may be one that others use too, and every constraint has a
name that follows from its columns, so that a later migration can drop or change it on any database. Rows are written once
and never changed, but policies and the signature of a baseline: what becomes of one (promoted, retired) is told by the audit log.

What is queried is a column. What is only read back whole is a payload (see `geluwatch.store.codec`).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, LargeBinary, MetaData, String, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from geluwatch.records import Resolution, State
from geluwatch.store.rules import KEY_LENGTH

# Without a length, MySQL would make this a BLOB of 64 KiB; a payload takes more.
_PAYLOAD = LargeBinary(2**32 - 1)


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class BaselineRow(Base):
    """One baseline; times are seconds since the epoch."""

    __tablename__ = "geluwatch_baseline"
    __table_args__ = (UniqueConstraint("model", "model_version", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(String(KEY_LENGTH))
    model_version: Mapped[str] = mapped_column(String(KEY_LENGTH))
    name: Mapped[str] = mapped_column(String(KEY_LENGTH))
    created: Mapped[float] = mapped_column(Double)
    certificate: Mapped[dict[str, Any]] = mapped_column(JSON)
    reference_payload: Mapped[bytes | None] = mapped_column(_PAYLOAD)
    """Null, like the next, in a baseline stored before schema 0002."""
    histogram_payload: Mapped[bytes | None] = mapped_column(_PAYLOAD)
    calm_payload: Mapped[bytes | None] = mapped_column(_PAYLOAD)
    """Null where there are no calm scores."""
    traffic: Mapped[str] = mapped_column(String(KEY_LENGTH), server_default=text("''"))
    """Which slice of the traffic it is of; empty for all of it."""
    provenance: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Null, like the next two, where there is none, as before schema 0003."""
    signature: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    probe_payload: Mapped[bytes | None] = mapped_column(_PAYLOAD)

    sites: Mapped[list[SiteRow]] = relationship(order_by="SiteRow.ordinal")
    windows: Mapped[list[WindowRow]] = relationship(order_by="WindowRow.position")


class SiteRow(Base):
    """One GELU call site, as it was when the baseline was recorded."""

    __tablename__ = "geluwatch_baseline_site"

    baseline_id: Mapped[int] = mapped_column(ForeignKey(BaselineRow.id, ondelete="CASCADE"), primary_key=True)
    ordinal: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Place in the baseline's own list."""
    position: Mapped[int]
    """Place in the order of the model's modules."""
    layer: Mapped[str] = mapped_column(Text)
    form: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    variant: Mapped[str] = mapped_column(Text)
    state: Mapped[State] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)


class WindowRow(Base):
    """One window; the columns repeat what is worth a query, the payload holds everything."""

    __tablename__ = "geluwatch_baseline_window"

    baseline_id: Mapped[int] = mapped_column(ForeignKey(BaselineRow.id, ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Place in the baseline's own list."""
    started: Mapped[float] = mapped_column(Double)
    ended: Mapped[float] = mapped_column(Double)
    forwards: Mapped[int] = mapped_column(BigInteger)
    sampled_forwards: Mapped[int] = mapped_column(BigInteger)
    thinned: Mapped[bool]
    payload: Mapped[bytes] = mapped_column(_PAYLOAD)


class AuditRow(Base):
    """One entry of the audit log, which is only ever added to; each names the digest of the one before it."""

    __tablename__ = "geluwatch_audit"
    __table_args__ = (UniqueConstraint("previous"), Index(None, "model", "model_version"))

    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[float] = mapped_column(Double)
    actor: Mapped[str] = mapped_column(String(KEY_LENGTH))
    action: Mapped[str] = mapped_column(String(KEY_LENGTH))
    model: Mapped[str] = mapped_column(String(KEY_LENGTH))
    model_version: Mapped[str] = mapped_column(String(KEY_LENGTH))
    name: Mapped[str] = mapped_column(String(KEY_LENGTH))
    """Of the baseline; empty where it is about the model."""
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)
    previous: Mapped[str] = mapped_column(String(64))
    """Unique: of two processes that add at once, one has to look again."""
    digest: Mapped[str] = mapped_column(String(64))


class PolicyRow(Base):
    """What a model's baselines need before they are promoted."""

    __tablename__ = "geluwatch_policy"

    model: Mapped[str] = mapped_column(String(KEY_LENGTH), primary_key=True)
    approvals: Mapped[int]
    stable_seconds: Mapped[float] = mapped_column(Double)


class HistoryRow(Base):
    """Windows of ordinary days, one or several merged; times are seconds since the epoch."""

    __tablename__ = "geluwatch_history"
    __table_args__ = (Index(None, "model", "model_version", "ended"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(String(KEY_LENGTH))
    model_version: Mapped[str] = mapped_column(String(KEY_LENGTH))
    resolution: Mapped[Resolution] = mapped_column(String(16))
    """"raw", "hour" or "day"."""
    source: Mapped[str] = mapped_column(String(KEY_LENGTH))
    """Which process saw it; empty where several are merged."""
    started: Mapped[float] = mapped_column(Double)
    ended: Mapped[float] = mapped_column(Double)
    windows: Mapped[int] = mapped_column(BigInteger)
    """Windows merged in it."""
    size: Mapped[int] = mapped_column(BigInteger)
    """Bytes of payload and summary, for a bound on their sum without reading them."""
    summary: Mapped[dict[str, Any]] = mapped_column(JSON)
    payload: Mapped[bytes] = mapped_column(_PAYLOAD)
