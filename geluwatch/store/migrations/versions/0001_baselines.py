"""Baselines with their sites and windows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the three tables."""
    op.create_table(
        "geluwatch_baseline",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("model_version", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("certificate", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_geluwatch_baseline"),
        sa.UniqueConstraint("model", "model_version", "name", name="uq_geluwatch_baseline_model_model_version_name"),
    )
    op.create_table(
        "geluwatch_baseline_site",
        sa.Column("baseline_id", sa.Integer, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("layer", sa.Text, nullable=False),
        sa.Column("form", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("variant", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("baseline_id", "ordinal", name="pk_geluwatch_baseline_site"),
        _belongs_to_baseline("geluwatch_baseline_site"),
    )
    op.create_table(
        "geluwatch_baseline_window",
        sa.Column("baseline_id", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("started", sa.Double, nullable=False),
        sa.Column("ended", sa.Double, nullable=False),
        sa.Column("forwards", sa.BigInteger, nullable=False),
        sa.Column("sampled_forwards", sa.BigInteger, nullable=False),
        sa.Column("thinned", sa.Boolean, nullable=False),
        sa.Column("payload", sa.LargeBinary(2**32 - 1), nullable=False),
        sa.PrimaryKeyConstraint("baseline_id", "position", name="pk_geluwatch_baseline_window"),
        _belongs_to_baseline("geluwatch_baseline_window"),
    )


def downgrade() -> None:
    """Drop the three tables and every baseline in them."""
    op.drop_table("geluwatch_baseline_window")
    op.drop_table("geluwatch_baseline_site")
    op.drop_table("geluwatch_baseline")


def _belongs_to_baseline(table: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_baseline_id_geluwatch_baseline"
    return sa.ForeignKeyConstraint(["baseline_id"], ["geluwatch_baseline.id"], name=name, ondelete="CASCADE")
