"""What a baseline's windows taught, beside the windows themselves: references, pooled histograms and calm scores."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_COLUMNS = ("reference_payload", "histogram_payload", "calm_payload")
_REASON = "A later release recorded it; record it again, or upgrade geluwatch."
_SHARED = ("windows", "left_out", "horizons", "tickets_per_month")


def upgrade() -> None:
    """Add the columns; baselines from before have none of it and are calibrated anew when they are armed."""
    for name in _COLUMNS:
        op.add_column("geluwatch_baseline", sa.Column(name, sa.LargeBinary(2**32 - 1), nullable=True))


def downgrade() -> None:
    """Drop the columns and put certificates into the form of before, in which they cannot be armed; windows stay.

    Upgraded again, such a baseline is calibrated anew from the moments of its windows.
    """
    _put_back_certificates()
    # Not Alembic's batch mode: on SQLite it drops the table to make it anew, and with it, by cascade, all sites and windows.
    for name in _COLUMNS:
        op.drop_column("geluwatch_baseline", name)


def _put_back_certificates() -> None:
    connection = op.get_bind()
    baseline = sa.table("geluwatch_baseline", sa.column("id", sa.Integer), sa.column("certificate", sa.JSON))
    for key, certificate in connection.execute(sa.select(baseline.c.id, baseline.c.certificate)).all():
        if "version" in certificate:
            connection.execute(baseline.update().where(baseline.c.id == key).values(certificate=_first_form(certificate)))


def _first_form(certificate: dict[str, Any]) -> dict[str, Any]:
    kept = {name: certificate[name] for name in _SHARED}
    unknown = {"thresholds": [], "replayed": 0, "exceeded": 0}
    return {**kept, **unknown, "armed": False, "reason": certificate["reason"] or _REASON}
