"""What surrounds a baseline: where it comes from, its probe, who did what with it, and the windows of ordinary days."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_PAYLOAD = sa.LargeBinary(2**32 - 1)
_COLUMNS = ("traffic", "provenance", "signature", "probe_payload")


def upgrade() -> None:
    """Add columns to baselines, and the tables of the audit log, the policies and the history."""
    op.add_column("geluwatch_baseline", sa.Column("traffic", sa.String(255), nullable=False, server_default=sa.text("''")))
    op.add_column("geluwatch_baseline", sa.Column("provenance", sa.JSON, nullable=True))
    op.add_column("geluwatch_baseline", sa.Column("signature", sa.JSON, nullable=True))
    op.add_column("geluwatch_baseline", sa.Column("probe_payload", _PAYLOAD, nullable=True))
    op.create_table(
        "geluwatch_audit",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("action", sa.String(255), nullable=False),
        *_model(),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_geluwatch_audit"),
        sa.UniqueConstraint("previous", name="uq_geluwatch_audit_previous"),
    )
    op.create_index("ix_geluwatch_audit_model_model_version", "geluwatch_audit", ["model", "model_version"])
    op.create_table(
        "geluwatch_policy",
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("approvals", sa.Integer, nullable=False),
        sa.Column("stable_seconds", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("model", name="pk_geluwatch_policy"),
    )
    op.create_table(
        "geluwatch_history",
        sa.Column("id", sa.Integer, nullable=False),
        *_model(),
        sa.Column("resolution", sa.String(16), nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("started", sa.Double, nullable=False),
        sa.Column("ended", sa.Double, nullable=False),
        sa.Column("windows", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("summary", sa.JSON, nullable=False),
        sa.Column("payload", _PAYLOAD, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_geluwatch_history"),
    )
    op.create_index("ix_geluwatch_history_model_model_version_ended", "geluwatch_history", ["model", "model_version", "ended"])


def downgrade() -> None:
    """Drop them, with the log and the history; baselines stay."""
    for table in ("geluwatch_history", "geluwatch_policy", "geluwatch_audit"):
        op.drop_table(table)
    # Not Alembic's batch mode: on SQLite it drops the table to make it anew, and with it, by cascade, all sites and windows.
    for name in _COLUMNS:
        op.drop_column("geluwatch_baseline", name)


def _model() -> tuple[sa.Column[str], sa.Column[str]]:
    return sa.Column("model", sa.String(255), nullable=False), sa.Column("model_version", sa.String(255), nullable=False)
