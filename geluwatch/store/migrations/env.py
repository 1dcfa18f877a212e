"""Alembic's entry point: runs migrations on the connection that `geluwatch.store.schema` hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from geluwatch.store.schema import VERSION_TABLE
from geluwatch.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
