"""URLs, connections, and what is said of those that do not work."""

from __future__ import annotations

import socket
import sqlite3
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError

from geluwatch.errors import StoreError
from geluwatch.records import Baseline
from geluwatch.store import SqlBaselines
from geluwatch.store.engine import for_writing, make_engine
from geluwatch.store.failures import reported

Make = Callable[..., Baseline]

SECRET = "sEcr3t"  # noqa: S105


def refusal(url: object) -> str:
    """Return the sentence with which a URL is refused, once it is known to be one and to keep the password."""
    with pytest.raises(StoreError) as caught:
        SqlBaselines(url)  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return sentence


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("geluwatch.db", "'geluwatch.db' is not a database URL; give one, for example \"sqlite:///geluwatch.db\""),
        (Path("geluwatch.db"), "PosixPath('geluwatch.db') is not a database URL"),
        ("", "'' is not a database URL"),
        (f"postgresql//gelu:{SECRET}@host/x", "The value given (not shown, it may hold a password) is not a database URL"),
        (f"postgresql://gelu:{SECRET}@host:port/x", "The value given (not shown, it may hold a password) is not a database URL"),
        (f"nosuch://gelu:{SECRET}@host/x", "The database nosuch://gelu:***@host/x is of a kind that SQLAlchemy does not know, 'nosuch'"),
        (f"oracle+cx_oracle://gelu:{SECRET}@host/x", "host/x needs a driver, 'cx_Oracle', that is missing; install the driver's package"),
        (
            f"postgresql+psycopg_async://gelu:{SECRET}@host/x",
            "names an asynchronous driver, 'postgresql+psycopg_async'; name a synchronous",
        ),
        ("sqlite:///x.db?timeout=soon", "sqlite:///x.db is given with settings after the question mark that its driver refuses"),
        (f"postgresql://gelu:{SECRET}@127.0.0.1:1/x", "postgresql+psycopg://gelu:***@127.0.0.1:1/x cannot be used (connection failed: "),
        (f"postgres://gelu:{SECRET}@127.0.0.1:1/x", "check that the server runs, and the host, the user and the database in the URL."),
        (f"postgresql://127.0.0.1:1/x?user=gelu&password={SECRET}", "The database postgresql+psycopg://127.0.0.1:1/x cannot be used"),
        (f"postgresql://gelu:{SECRET}@127.0.0.1:1/x?colour=red", 'cannot be used (invalid connection option "colour")'),
    ],
)
def test_an_unusable_url_is_refused_in_one_sentence(url: object, said: str) -> None:
    """Each foreseeable mistake is named, with the value and without the password."""
    assert said in refusal(url)


def test_a_missing_psycopg_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PostgreSQL URL without the driver says what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "install psycopg[binary]." in refusal(f"postgresql://gelu:{SECRET}@host/x")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """A file in a directory that is not there is refused before SQLite, which would only say that it cannot open it."""
    said = f"lies in a directory that does not exist, '{tmp_path}/nowhere'; create it or correct the path."
    assert refusal(f"sqlite:///{tmp_path}/nowhere/store.db").endswith(said)
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """The path of a directory cannot be opened."""
    assert "cannot be opened; check that the path is a file" in refusal(f"sqlite:///{tmp_path}")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """A file of something else is refused and left as it was."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database\n" * 100, encoding="utf-8")
    assert "is not an SQLite database; give the path of another file." in refusal(f"sqlite:///{path}")
    assert "not a database\n" * 100 == path.read_text(encoding="utf-8")


def test_a_damaged_file(tmp_path: Path) -> None:
    """A database with its pages overwritten is refused as damaged."""
    path = tmp_path / "store.db"
    SqlBaselines(f"sqlite:///{path}").close()
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    assert "is damaged; restore it from a copy" in refusal(f"sqlite:///{path}")


def test_a_read_only_file_can_be_read(tmp_path: Path, baseline: Make) -> None:
    """A current database opened read-only yields its baselines and refuses new ones; an empty one is refused at once."""
    path = tmp_path / "store.db"
    writable = SqlBaselines(f"sqlite:///{path}")
    writable.save(baseline())
    store = SqlBaselines(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert "v1" == store.load("minilm", "1", "latest").name
    with pytest.raises(StoreError, match=r"is read-only; make the file and its directory writable\.$"):
        store.save(baseline(name="v2"))
    (tmp_path / "empty.db").touch()
    assert "is read-only" in refusal(f"sqlite:///file:{tmp_path}/empty.db?mode=ro&uri=true")


def test_a_locked_file(tmp_path: Path, baseline: Make) -> None:
    """While another process writes, reading goes on and writing gives up after the time-out of the URL."""
    path = tmp_path / "store.db"
    store = SqlBaselines(f"sqlite:///{path}?timeout=0.05")
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    assert () == store.names("minilm", "1")
    with pytest.raises(StoreError, match="is locked by another process that has been writing for too long; try again"):
        store.save(baseline())
    other.close()


def test_a_wrong_password(server: Any) -> None:
    """PostgreSQL's refusal is passed on without the password that was tried."""
    assert 'password authentication failed for user "gelu"' in refusal(server.url("postgres", SECRET))


def test_a_database_that_is_not_there(server: Any) -> None:
    """A database that nobody has created is named."""
    assert 'database "nowhere" does not exist' in refusal(server.url("nowhere"))


def test_a_server_that_never_answers_is_given_up() -> None:
    """A server that takes the connection and stays silent is given up after the time-out of the URL."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert "timeout expired" in refusal(f"postgresql://gelu:{SECRET}@{address}/x?connect_timeout=2")


@pytest.mark.parametrize(("settings", "expected"), [("", 10), ("?connect_timeout=3", "3")])
def test_every_server_has_a_time_out(monkeypatch: pytest.MonkeyPatch, settings: str, expected: object) -> None:
    """Without a time-out in the URL, the driver gets the store's own."""
    given: list[object] = []
    connect = psycopg.connect

    def watched(*words: Any, **named: Any) -> Any:
        given.append(named["connect_timeout"])
        return connect(*words, **named)

    monkeypatch.setattr(psycopg, "connect", watched)
    refusal(f"postgresql://127.0.0.1:1/x{settings}")
    assert [expected] == given


def test_a_message_that_holds_the_password_is_not_shown() -> None:
    """Whatever a driver says, a message with the password in it stays out of the sentence and of the traceback."""
    url = make_url(f"postgresql://gelu:{SECRET}@host/x?sslpassword=0ther&connect_timeout=3")
    for message in (f"bad settings: password={SECRET}", "bad settings: 0ther"):
        with pytest.raises(StoreError) as caught, reported(url):
            raise OperationalError("SELECT 1", {}, RuntimeError(message))
        assert "(RuntimeError, whose message is not shown since it holds the password)" in str(caught.value)
        assert "bad settings" not in "".join(traceback.format_exception(caught.value))


def test_long_messages_are_cut() -> None:
    """A driver's page of text becomes one line of bounded length."""
    with pytest.raises(StoreError) as caught, reported(make_url("sqlite://")):
        raise DBAPIError("SELECT 1", {}, RuntimeError("many\nwords " * 100))
    assert "(many words many words" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_sqlite_files_are_set_up(tmp_path: Path) -> None:
    """Every connection to a file has write-ahead logging, foreign keys and a time-out of ten seconds."""
    SqlBaselines(f"sqlite:///{tmp_path}/store.db").close()
    with make_engine(f"sqlite:///{tmp_path}/store.db").connect() as connection:
        settings = [connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "foreign_keys", "busy_timeout")]
    assert ["wal", 1, 10_000] == settings


def test_a_relative_path_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes mean a path relative to where the process runs."""
    monkeypatch.chdir(tmp_path)
    SqlBaselines("sqlite:///store.db").close()
    assert (tmp_path / "store.db").is_file()


def test_what_writes_on_a_server_sees_what_others_have_committed() -> None:
    """Writing is READ COMMITTED by our own word on any server, and nothing of the kind is said to SQLite, which has no such level."""
    levels = [
        for_writing(make_engine(url)).get_execution_options().get("isolation_level") for url in ("postgresql://gelu@host/x", "sqlite://")
    ]
    assert ["READ COMMITTED", None] == levels


def test_tables_are_made_within_the_transaction(tmp_path: Path) -> None:
    """On SQLite too, what a failed transaction has created is gone."""
    engine = make_engine(f"sqlite:///{tmp_path}/store.db")

    def fail() -> None:
        with for_writing(engine).begin() as connection:
            connection.execute(text("CREATE TABLE made (id INTEGER)"))
            connection.execute(text("INSERT INTO missing VALUES (1)"))

    with pytest.raises(OperationalError, match="no such table"):
        fail()
    with engine.connect() as connection:
        assert [] == list(connection.scalars(text("SELECT name FROM sqlite_master")))
