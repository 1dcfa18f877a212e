"""Brings the tables of a database to this release's schema, under a lock, with Alembic loaded only when there is work.

The migrations are package data beside this module; there is no `alembic.ini`, and logging stays as the process has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from geluwatch.errors import StoreError
from geluwatch.store.engine import for_writing
from geluwatch.store.failures import shown

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0003"
"""Newest migration of this release; to know it without loading Alembic is what makes opening quick."""

NOTHING = "base"
"""Alembic's name for the state before the first migration."""

# Alembic's own name for it would collide in a database whose owner uses Alembic too.
VERSION_TABLE = "geluwatch_schema"

_MIGRATIONS = Path(__file__).with_name("migrations")
_POSTGRESQL_LOCK = 0x67656C75


def prepare(engine: Engine) -> bool:
    """Create or upgrade the tables where they are not this release's; return whether there was need to.

    Two processes may do this to one new database at the same time: the second waits, then finds the work done.

    Raises:
        StoreError: The schema is newer than this release.
    """
    with engine.connect() as connection:
        if not _due(connection):
            return False
    with for_writing(engine).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRESQL_LOCK})
        if _due(connection):
            upgrade(connection)
    return True


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    """Run the migrations that are due up to a revision, in the connection's transaction."""
    from alembic import command

    command.upgrade(_config(connection), revision)


def downgrade(connection: Connection, revision: str = NOTHING) -> None:
    """Go back to a revision, in the connection's transaction.

    By default that is to before the first: every table of geluwatch, with all baselines, leaves the database. SQLite knows
    how to drop the columns of later revisions from 3.35 on.
    """
    from alembic import command

    command.downgrade(_config(connection), revision)
    if revision == NOTHING:
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))


def _due(connection: Connection) -> bool:
    if not inspect(connection).has_table(VERSION_TABLE):
        return True
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    if found is None or found == HEAD:
        return found is None
    if not any(_MIGRATIONS.glob(f"versions/{found}_*.py")):
        database = shown(connection.engine.url)
        raise StoreError(f"{database} has schema {found!r}, newer than {HEAD!r}, the newest that this release knows; upgrade geluwatch.")
    return True


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    # A percent sign in the path would otherwise be read as interpolation.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config
