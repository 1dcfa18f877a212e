"""The store on a database: what can go wrong within a save or a load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import Engine, event, text

from geluwatch.errors import BaselineError, StoreError
from geluwatch.records import Baseline
from geluwatch.store import SqlBaselines
from geluwatch.store.codec import encode_window
from geluwatch.store.engine import for_writing, make_engine
from geluwatch.store.schema import downgrade

Make = Callable[..., Baseline]

TABLES = ("geluwatch_baseline", "geluwatch_baseline_site", "geluwatch_baseline_window")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """A second way into the store's database."""
    made = make_engine(url)
    yield made
    made.dispose()


def rows(engine: Engine) -> list[int]:
    """Return how many rows each table has."""
    with engine.connect() as connection:
        return [connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() for table in TABLES]


def test_a_second_process_sees_what_was_saved(url: str, baseline: Make, same: Callable[..., bool]) -> None:
    """What one store object saved, another opened later loads exactly."""
    saved = baseline()
    first = SqlBaselines(url)
    first.save(saved)
    first.close()
    assert same(saved, SqlBaselines(url).load("minilm", "1", "v1"))


def test_a_save_that_fails_leaves_nothing(url: str, engine: Engine, baseline: Make) -> None:
    """When the database refuses the second window, neither the baseline nor its sites nor the first window stay."""
    store = SqlBaselines(url)
    with for_writing(engine).begin() as connection:
        for statement in refuse_window_one(connection.dialect.name):
            connection.execute(text(statement))
    with pytest.raises(StoreError, match="no window one"):
        store.save(baseline())
    assert [0, 0, 0] == rows(engine)
    store.save(baseline(windows=baseline().windows[:1]))
    assert [1, 2, 1] == rows(engine)


def refuse_window_one(dialect: str) -> list[str]:
    """Return the statements after which a database refuses every window at position 1."""
    trigger = "CREATE TRIGGER refuse BEFORE INSERT ON geluwatch_baseline_window FOR EACH ROW WHEN (NEW.position = 1)"
    if dialect == "sqlite":
        return [f"{trigger} BEGIN SELECT RAISE(ABORT, 'no window one'); END"]
    function = "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'no window one'; END $$ LANGUAGE plpgsql"
    return [function, f"{trigger} EXECUTE FUNCTION refuse()"]


def test_a_window_that_cannot_be_stored_leaves_nothing(url: str, engine: Engine, baseline: Make) -> None:
    """A malformed window is refused before the database is touched."""
    store = SqlBaselines(url)
    first, second = baseline().windows
    ((key, point),) = second.points.items()
    broken = replace(point, histogram=replace(point.histogram, cells=np.zeros(7, np.int32)))
    with pytest.raises(BaselineError, match="does not belong to counts"):
        store.save(baseline(windows=(first, replace(second, points={key: broken}))))
    assert [0, 0, 0] == rows(engine)


def test_a_full_disk(tmp_path_factory: pytest.TempPathFactory, baseline: Make) -> None:
    """A database that may not grow refuses a save with the reason and keeps what it had."""
    store = SqlBaselines(f"sqlite:///{tmp_path_factory.mktemp('full')}/store.db")
    store.save(baseline())

    @event.listens_for(store._engine, "connect")
    def limit(connection: object, _entry: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # type: ignore[attr-defined]

    with pytest.raises(StoreError, match="has no room left; free space on its disk"):
        store.save(baseline(name="v2", windows=baseline().windows * 20))
    assert ("v1",) == store.names("minilm", "1")


@pytest.mark.parametrize("payload", [b"", b"foreign", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_window_is_named(url: str, engine: Engine, baseline: Make, payload: bytes) -> None:
    """Loading says which window of which baseline is damaged; other baselines still load."""
    store = SqlBaselines(url)
    store.save(baseline())
    store.save(baseline(name="v2"))
    with for_writing(engine).begin() as connection:
        damage = text("UPDATE geluwatch_baseline_window SET payload = :payload WHERE position = 1 AND baseline_id = 1")
        connection.execute(damage, {"payload": payload})
    with pytest.raises(StoreError, match=r'^Window 1 of baseline "v1" of model "minilm" version "1" cannot be read'):
        store.load("minilm", "1", "v1")
    assert "v2" == store.load("minilm", "1", "v2").name


def test_a_damaged_part_is_named(url: str, engine: Engine, baseline: Make) -> None:
    """Loading says which part of which baseline is damaged, even where it holds a sound payload of another part."""
    store = SqlBaselines(url)
    for part, named in (("reference", "references"), ("histogram", "pooled histograms"), ("calm", "calm scores")):
        store.save(baseline(name=part))
        for payload in (b"foreign", encode_window(baseline().windows[0])):
            with for_writing(engine).begin() as connection:
                damage = text(f"UPDATE geluwatch_baseline SET {part}_payload = :payload WHERE name = :name")
                connection.execute(damage, {"payload": payload, "name": part})
            with pytest.raises(StoreError, match=rf'^The {named} of baseline "{part}" of model "minilm" version "1" cannot be read'):
                store.load("minilm", "1", part)


def test_a_damaged_certificate_is_named(url: str, engine: Engine, baseline: Make) -> None:
    """Loading says whose certificate is damaged."""
    store = SqlBaselines(url)
    store.save(baseline())
    with for_writing(engine).begin() as connection:
        connection.execute(text("UPDATE geluwatch_baseline SET certificate = '{}'"))
    with pytest.raises(StoreError, match=r'^The certificate of baseline "v1" of model "minilm" version "1" cannot be read'):
        store.load("minilm", "1", "v1")


def test_deleting_a_baseline_takes_its_rows_along(url: str, engine: Engine, baseline: Make) -> None:
    """The database itself removes sites and windows of a baseline that an operator deletes."""
    store = SqlBaselines(url)
    store.save(baseline())
    store.save(baseline(name="v2", windows=()))
    with for_writing(engine).begin() as connection:
        connection.execute(text("DELETE FROM geluwatch_baseline WHERE name = 'v1'"))
    assert [1, 2, 0] == rows(engine)


def test_columns_can_be_queried(url: str, engine: Engine, baseline: Make) -> None:
    """Times and counters of a window are plain columns, numbers even where numpy computed them."""
    window = replace(baseline().windows[0], forwards=np.int64(7), started=np.float64(0.5), thinned=np.bool_(True))  # type: ignore[arg-type]
    SqlBaselines(url).save(baseline(windows=(window,), created=np.float64(3.25)))
    columns = "created, started, ended, forwards, sampled_forwards"
    query = f"SELECT {columns} FROM geluwatch_baseline JOIN geluwatch_baseline_window ON baseline_id = id WHERE thinned"
    with engine.connect() as connection:
        found = connection.execute(text(query)).one()
    assert (3.25, 0.5, 1060.7, 7, 17) == tuple(found)


def test_a_server_that_is_gone_is_reported(url: str, engine: Engine, baseline: Make) -> None:
    """When tables vanish under an open store though the database says that it has them, every call says so as a store error."""
    store = SqlBaselines(url)
    with for_writing(engine).begin() as connection:
        for table in reversed(TABLES):
            connection.execute(text(f"DROP TABLE {table}"))
    for call in (lambda: store.save(baseline()), store.listing, lambda: store.names("m", "1"), lambda: store.load("m", "1", "latest")):
        with pytest.raises(StoreError, match="geluwatch_baseline"):
            call()


def test_a_database_that_was_replaced_is_told_once(url: str, engine: Engine, baseline: Make) -> None:
    """When it is empty under an open store, the first call says that its tables have been made, and the next one works."""
    store = SqlBaselines(url)
    with for_writing(engine).begin() as connection:
        downgrade(connection)
    with pytest.raises(StoreError, match=r"had lost its tables, which have been made anew; try again\.$"):
        store.save(baseline())
    store.save(baseline())
    assert 1 == len(store.listing())


def test_a_closed_store_says_so(url: str, baseline: Make) -> None:
    """After `close` every call is refused, and the data stays in the database."""
    store = SqlBaselines(url)
    store.save(baseline())
    store.close()
    for call in (lambda: store.save(baseline(name="v2")), store.listing, lambda: store.names("minilm", "1")):
        with pytest.raises(StoreError, match=r"has been closed by this process; open it again\.$"):
            call()
    assert ("v1",) == SqlBaselines(url).names("minilm", "1")


def test_no_connection_is_kept(url: str, baseline: Make) -> None:
    """Between calls a store on a file or a server holds no connection."""
    store = SqlBaselines(url)
    opened, closed = [], []
    event.listen(store._engine, "connect", lambda *_: opened.append(1))
    event.listen(store._engine, "close", lambda *_: closed.append(1))
    store.save(baseline())
    store.names("minilm", "1")
    assert 2 == len(opened) == len(closed)
