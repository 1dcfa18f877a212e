"""Migrations: they make the tables that the code expects, go both ways, and run only when due."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.schema import CreateTable

from geluwatch.errors import StoreError
from geluwatch.store import SqlBaselines
from geluwatch.store.engine import for_writing, make_engine
from geluwatch.store.schema import HEAD, VERSION_TABLE, downgrade, upgrade
from geluwatch.store.tables import Base, BaselineRow, WindowRow


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An empty database, of each kind."""
    made = make_engine(url)
    yield made
    made.dispose()


def test_upgrade_makes_what_the_tables_declare(engine: Engine) -> None:
    """From nothing to head, Alembic finds no difference between the database and the declared tables."""
    with for_writing(engine).begin() as connection:
        upgrade(connection)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_server_default": True})
        assert [] == compare_metadata(context, Base.metadata)
        assert {*Base.metadata.tables, VERSION_TABLE} == set(inspect(connection).get_table_names())


def test_constraints_are_named_as_declared(engine: Engine) -> None:
    """Every key has the name that the declared tables give it, so that later migrations can find it on any database."""
    with for_writing(engine).begin() as connection:
        upgrade(connection)
    with engine.connect() as connection:
        found = inspect(connection)
        for name, table in Base.metadata.tables.items():
            assert table.primary_key.name == found.get_pk_constraint(name)["name"]
            assert [key.name for key in table.foreign_key_constraints] == [key["name"] for key in found.get_foreign_keys(name)]
            assert all(key["options"] == {"ondelete": "CASCADE"} for key in found.get_foreign_keys(name))


def test_downgrade_leaves_nothing_and_upgrade_works_again(engine: Engine) -> None:
    """All the way down no table is left, and the way up is open as before."""
    for _ in range(2):
        with for_writing(engine).begin() as connection:
            upgrade(connection)
        with for_writing(engine).begin() as connection:
            downgrade(connection)
            assert [] == inspect(connection).get_table_names()


def test_a_migration_that_fails_leaves_nothing(engine: Engine) -> None:
    """A table in the way stops the migration; those it had made before are gone, and the stranger's table is not touched."""
    with for_writing(engine).begin() as connection:
        connection.execute(text("CREATE TABLE geluwatch_baseline_window (mine INTEGER)"))
    with pytest.raises(StoreError, match="already exists"):
        SqlBaselines(engine.url.render_as_string(hide_password=False))
    with engine.connect() as connection:
        assert ["geluwatch_baseline_window"] == inspect(connection).get_table_names()


def test_tables_of_others_are_left_alone(engine: Engine) -> None:
    """A database that another program keeps with Alembic can hold the baselines too."""
    with for_writing(engine).begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
    SqlBaselines(engine.url.render_as_string(hide_password=False)).close()
    with engine.connect() as connection:
        assert ["theirs"] == list(connection.scalars(text("SELECT version_num FROM alembic_version")))


def test_a_newer_schema_asks_for_an_upgrade(url: str, engine: Engine) -> None:
    """A database that a later release has migrated is refused untouched, with both revisions and without the password."""
    SqlBaselines(url).close()
    with for_writing(engine).begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0099'"))
    with pytest.raises(StoreError) as caught:
        SqlBaselines(url)
    ending = "has schema '0099', newer than '0003', the newest that this release knows; upgrade geluwatch."
    assert f"The database {engine.url.render_as_string(hide_password=True)} {ending}" == str(caught.value)


def test_head_is_the_newest_migration() -> None:
    """The constant that spares loading Alembic is the head of the scripts, of which there is one."""
    config = Config()
    config.set_main_option("script_location", str(files("geluwatch.store") / "migrations"))
    assert [HEAD] == ScriptDirectory.from_config(config).get_heads()


def test_alembic_is_loaded_only_when_due(tmp_path: Path) -> None:
    """Importing the store and opening a current database leave Alembic unloaded; a new database loads it."""
    check = "print('alembic' in sys.modules)"
    script = f"import sys, geluwatch.store as store; {check}; store.SqlBaselines(sys.argv[1]); {check}"
    command = [sys.executable, "-c", script, f"sqlite:///{tmp_path}/store.db"]
    first, second = (subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(2))
    assert ["False", "True"] == first
    assert ["False", "False"] == second


def test_migrating_leaves_logging_alone(tmp_path: Path) -> None:
    """No handler and no level changes, of the root or of any logger that was there."""

    def state() -> list[object]:
        loggers = [logging.root, *(logging.getLogger(name) for name in ("alembic", "alembic.runtime.migration", "sqlalchemy"))]
        return [(logger.level, list(logger.handlers), logger.disabled, logger.propagate) for logger in loggers]

    before = state()
    SqlBaselines(f"sqlite:///{tmp_path}/store.db").close()
    assert before == state()


def test_migrating_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Opening a new database is silent."""
    SqlBaselines(f"sqlite:///{tmp_path}/100% new.db").close()
    assert ("", "") == tuple(capfd.readouterr())


@pytest.mark.parametrize(("dialect", "type_name"), [(sqlite, "BLOB"), (postgresql, "BYTEA"), (mysql, "BLOB(4294967295)")])
def test_payloads_fit_on_every_database(dialect: object, type_name: str) -> None:
    """A payload's column takes far more than the 64 KiB that a bare blob has on MySQL."""
    window, baseline = (
        str(CreateTable(row.__table__).compile(dialect=dialect.dialect()))  # type: ignore[attr-defined,arg-type]
        for row in (WindowRow, BaselineRow)
    )
    assert f"payload {type_name} NOT NULL" in window
    for part in ("reference", "histogram", "calm"):
        assert f"{part}_payload {type_name}" in baseline
